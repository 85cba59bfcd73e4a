// border.cpp MODEL - peft.hpp where it matters: exceptions that leave a callback, callbacks that say no, errors, moves.
#include <iostream>

#include "peft.hpp"

static int failed = 0;

static void check(const char *what, bool ok) {
    std::cout << (ok ? "ok " : "not ok ") << what << '\n';
    failed += !ok;
}

struct mine {
    int number;
};

static void training(const peft::context &ctx, const peft::tokenizer &tokenizer, const peft::adapters &adapters) {
    peft::dataset data(ctx, tokenizer);
    data.add_json(R"({"text": "a b c"})");
    peft::options options(ctx, "trainer");
    options.set("max_steps", 3).set("seed", "1");
    peft::trainer trainer(adapters, &options);
    trainer.add_job("a", data);
    int caught = 0, steps = 0;
    try {
        trainer.run([](const peft_step_info &info) -> bool { throw mine{static_cast<int>(info.step)}; });
    } catch (const mine &m) { caught = m.number; }
    check("an exception of the progress function arrives", caught == 1);
    try {
        trainer.run([](const peft_step_info &) { return false; });
    } catch (const peft::error &e) { caught = e.status(); }
    check("no more steps", caught == PEFT_E_CALLBACK);
    peft::trainer moved = std::move(trainer);
    moved.run([&](const peft_step_info &) { return ++steps > 0; });
    check("a moved trainer goes on", steps == 1 && trainer.get() == nullptr);
}

int main(int argc, char **argv) try {
    const std::string path = argc > 1 ? argv[1] : ".";
    peft::context ctx;
    ctx.set_threads(1);
    peft::model model(ctx, path);
    peft::tokenizer tokenizer(ctx, path);
    peft::adapters adapters(model);
    adapters.add("a", "lora");
    peft_status status = PEFT_OK;
    std::string text;
    try {
        adapters.add("b", "lorra");
    } catch (const peft::error &e) { status = e.status(), text = e.what(); }
    check("an error has status and text", status == PEFT_E_UNSUPPORTED && text.find("\"lorra\"") != std::string::npos);
    try {
        peft::options(ctx, "trainer").get();
        peft::options o(ctx, "trainer");
        o.set("max_stepz", 3);
    } catch (const peft::error &e) { status = e.status(); }
    check("an unknown key", status == PEFT_E_KEY);
    training(ctx, tokenizer, adapters);

    peft::session session(model, adapters, "a");
    peft::options few(ctx, "generate");
    few.set("max_new_tokens", 5);
    int calls = 0, caught = 0;
    std::string pieces;
    const std::string all = session.generate_text(tokenizer, "The", &few, [&](int32_t, const std::string &piece) {
        pieces += piece;
        return ++calls > 0;
    });
    check("the pieces are the text", calls == 5 && !all.empty() && all == pieces && all == session.generate_text(tokenizer, "The", &few));
    try {
        session.generate_text(tokenizer, "The", &few, [](int32_t, const std::string &) -> bool { throw mine{7}; });
    } catch (const mine &m) { caught = m.number; }
    check("an exception of the token function arrives", caught == 7);
    check("texts by the buffer rule", model.info_json().find("\"architecture\"") != std::string::npos &&
                                          few.json().find("\"max_new_tokens\":5") != std::string::npos);
    ctx = peft::context(); // what was made of the former one lives on
    check("handles go in any order", session.generate_text(tokenizer, "The", &few) == all);
    return failed != 0;
} catch (const std::exception &e) {
    std::cout << "not ok " << e.what() << '\n';
    return 1;
}
