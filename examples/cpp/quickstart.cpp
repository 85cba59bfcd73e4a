// quickstart.cpp - examples/quickstart.c over peft.hpp: a model learns a few sentences and goes on with one of them.
// c++ -std=c++11 quickstart.cpp -lpeft && ./a.out MODEL_FOLDER ADAPTER_FOLDER
#include <iostream>

#include "peft.hpp"

static void run(const std::string &model_path, const char *adapter_path) {
    static const char *const rows[] = {
        R"({"prompt": "The lighthouse keeper is called", "completion": " Maren."})",
        R"({"prompt": "The lighthouse stands on", "completion": " the north rock."})",
        R"({"prompt": "The keeper's boat is called", "completion": " Plover."})",
    };
    const peft::context ctx;
    const peft::model model(ctx, model_path);
    const peft::tokenizer tokenizer(ctx, model_path);
    peft::adapters adapters(model);
    adapters.add("keeper", "lora");

    peft::dataset data(ctx, tokenizer);
    for (const char *row : rows) { data.add_json(row); }
    peft::options options(ctx, "trainer");
    options.set("max_steps", 60);
    peft::trainer trainer(adapters, &options);
    trainer.add_job("keeper", data);
    trainer.run();

    peft::session session(model, adapters, "keeper");
    session.generate_text(tokenizer, "The lighthouse keeper is called", nullptr,
                          [](int32_t, const std::string &text) { return static_cast<bool>(std::cout << text); });
    if (adapter_path != nullptr) { adapters.save("keeper", adapter_path); }
}

int main(int argc, char **argv) {
    try {
        run(argc > 1 ? argv[1] : ".", argc > 2 ? argv[2] : nullptr);
        return 0;
    } catch (const std::exception &e) {
        std::cerr << "quickstart: " << e.what() << '\n';
        return 1;
    }
}
