// peft.hpp - libpeft for C++11 and later, as one header over peft.h: copy it into your project and take away what you do not need.
//
// Each class owns one handle of the C interface; it can be moved and not copied, and get() gives the handle for every function
// that has no member here. A status that is no PEFT_OK is thrown as peft::error with the library's text. Callbacks are
// std::functions: an exception that leaves one is kept at the border, ends the call, and goes on where that returns.
//
// Left out: allocators, parallel-for, log functions, batches, loops of one's own - use get() and peft.h.
#ifndef PEFT_HPP
#define PEFT_HPP

#include <peft.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace peft {

class error : public std::runtime_error {
public:
    explicit error(peft_status status) : std::runtime_error(peft_last_error()), status_(status) {}
    peft_status status() const noexcept { return status_; }

private:
    peft_status status_;
};

inline void check(peft_status status) {
    if (status != PEFT_OK) { throw error(status); }
}

namespace detail {

template <class T, void (*Free)(T *)>
struct deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};

template <class T, void (*Free)(T *)>
using owner = std::unique_ptr<T, deleter<T, Free>>;

// Calls a C function whose last argument is the new handle.
template <class T, void (*Free)(T *), class Make>
owner<T, Free> make(Make &&call) {
    T *handle = nullptr;
    check(call(&handle));
    return owner<T, Free>(handle);
}

// Text by the buffer rule: asked for its size first.
template <class Call>
std::string text(Call &&call) {
    size_t needed = 0;
    const peft_status status = call(nullptr, 0, &needed);
    if (status != PEFT_E_BUFFER) { check(status); }
    std::string out(needed > 0 ? needed : 1, '\0');
    check(call(&out[0], out.size(), &needed));
    out.resize(needed > 0 ? needed - 1 : 0);
    return out;
}

// Where C++ is called from C: what is thrown waits here until the C function has returned.
class border {
public:
    template <class Call>
    int32_t run(Call &&call) noexcept {
        try {
            return call() ? 0 : 1;
        } catch (...) {
            thrown_ = std::current_exception();
            return 1;
        }
    }
    void cross(peft_status status) {
        if (thrown_) { std::rethrow_exception(thrown_); }
        check(status);
    }

private:
    std::exception_ptr thrown_;
};

} // namespace detail

// What a default argument makes: the handle of no options.
class options;
inline const peft_options *raw(const options *o) noexcept;

class context {
public:
    context()
        : handle_(detail::make<peft_context, peft_context_free>(
              [](peft_context **out) { return peft_context_create(nullptr, out); })) {}
    void set_threads(int32_t n) { check(peft_context_set_threads(get(), n)); }
    void set_isa(const std::string &name) { check(peft_context_set_isa(get(), name.c_str())); }
    peft_context *get() const noexcept { return handle_.get(); }

private:
    detail::owner<peft_context, peft_context_free> handle_;
};

class options {
public:
    options(const context &ctx, const std::string &schema)
        : handle_(detail::make<peft_options, peft_options_free>(
              [&](peft_options **out) { return peft_options_create(ctx.get(), schema.c_str(), out); })) {}
    // Any key in its own type, as a command line would: "16", "true", "q_proj,v_proj".
    options &set(const std::string &key, const std::string &value) & {
        check(peft_options_set_text(get(), key.c_str(), value.c_str()));
        return *this;
    }
    options &set(const std::string &key, const char *value) & { return set(key, std::string(value)); }
    options &set(const std::string &key, double value) & {
        check(peft_options_set_float(get(), key.c_str(), value));
        return *this;
    }
    options &set(const std::string &key, int64_t value) & {
        check(peft_options_set_int(get(), key.c_str(), value));
        return *this;
    }
    options &set(const std::string &key, int value) & { return set(key, static_cast<int64_t>(value)); }
    options &set(const std::string &key, bool value) & {
        check(peft_options_set_bool(get(), key.c_str(), value ? 1 : 0));
        return *this;
    }
    std::string json() const {
        return detail::text([&](char *buf, size_t cap, size_t *needed) { return peft_options_get_json(get(), buf, cap, needed); });
    }
    peft_options *get() const noexcept { return handle_.get(); }

private:
    detail::owner<peft_options, peft_options_free> handle_;
};

inline const peft_options *raw(const options *o) noexcept { return o != nullptr ? o->get() : nullptr; }

class model {
public:
    model(const context &ctx, const std::string &path, const options *opts = nullptr)
        : handle_(detail::make<peft_model, peft_model_free>(
              [&](peft_model **out) { return peft_model_open(ctx.get(), path.c_str(), raw(opts), out); })) {}
    std::string info_json() const {
        return detail::text([&](char *buf, size_t cap, size_t *needed) { return peft_model_info_json(get(), buf, cap, needed); });
    }
    peft_model *get() const noexcept { return handle_.get(); }

private:
    detail::owner<peft_model, peft_model_free> handle_;
};

class tokenizer {
public:
    tokenizer(const context &ctx, const std::string &path)
        : handle_(detail::make<peft_tokenizer, peft_tokenizer_free>(
              [&](peft_tokenizer **out) { return peft_tokenizer_open(ctx.get(), path.c_str(), out); })) {}
    peft_tokenizer *get() const noexcept { return handle_.get(); }

private:
    detail::owner<peft_tokenizer, peft_tokenizer_free> handle_;
};

class adapters {
public:
    explicit adapters(const model &m)
        : handle_(detail::make<peft_adapters, peft_adapters_free>(
              [&](peft_adapters **out) { return peft_adapters_create(m.get(), out); })) {}
    void add(const std::string &name, const std::string &method, const options *opts = nullptr, uint64_t seed = 1) {
        check(peft_adapters_add(get(), name.c_str(), method.c_str(), raw(opts), seed));
    }
    void load(const std::string &name, const std::string &path, const options *opts = nullptr) {
        check(peft_adapters_load(get(), name.c_str(), path.c_str(), raw(opts)));
    }
    void save(const std::string &name, const std::string &path, const options *opts = nullptr) const {
        check(peft_adapters_save(get(), name.c_str(), path.c_str(), raw(opts)));
    }
    void merge(const std::string &expression, const std::string &path, const options *opts = nullptr) const {
        check(peft_adapters_merge(get(), expression.c_str(), path.c_str(), raw(opts)));
    }
    peft_adapters *get() const noexcept { return handle_.get(); }

private:
    detail::owner<peft_adapters, peft_adapters_free> handle_;
};

class dataset {
public:
    dataset(const context &ctx, const tokenizer &t, const options *opts = nullptr)
        : handle_(detail::make<peft_dataset, peft_dataset_free>(
              [&](peft_dataset **out) { return peft_dataset_create(ctx.get(), t.get(), raw(opts), out); })) {}
    void load_jsonl(const std::string &path) { check(peft_dataset_load_jsonl(get(), path.c_str())); }
    void add_json(const std::string &row) { check(peft_dataset_add_json(get(), row.data(), row.size())); }
    size_t size() const noexcept { return peft_dataset_size(get()); }
    peft_dataset *get() const noexcept { return handle_.get(); }

private:
    detail::owner<peft_dataset, peft_dataset_free> handle_;
};

class trainer {
public:
    // Says whether to go on; where it says no, run() throws PEFT_E_CALLBACK.
    using progress = std::function<bool(const peft_step_info &)>;

    explicit trainer(const adapters &a, const options *opts = nullptr)
        : handle_(detail::make<peft_trainer, peft_trainer_free>(
              [&](peft_trainer **out) { return peft_trainer_create(a.get(), raw(opts), out); })) {}
    void add_job(const std::string &adapter, const dataset &train, const dataset *eval = nullptr, const options *optimizer = nullptr) {
        check(peft_trainer_add_job(get(), adapter.c_str(), train.get(), eval != nullptr ? eval->get() : nullptr, raw(optimizer)));
    }
    void run(const progress &each_step = nullptr) {
        watched w = {&each_step, {}};
        check(peft_trainer_set_progress(get(), each_step ? on_step : nullptr, &w));
        const peft_status status = peft_trainer_run(get());
        (void)peft_trainer_set_progress(get(), nullptr, nullptr); // because w ends here
        w.at.cross(status);
    }
    void cancel() noexcept { peft_trainer_cancel(get()); } // from any thread
    peft_trainer *get() const noexcept { return handle_.get(); }

private:
    struct watched {
        const progress *call;
        detail::border at;
    };
    static int32_t on_step(void *user, const peft_step_info *info) {
        watched *w = static_cast<watched *>(user);
        return w->at.run([&] { return (*w->call)(*info); });
    }
    detail::owner<peft_trainer, peft_trainer_free> handle_;
};

class session {
public:
    // Each token with the text that it completes. Says whether to go on; where it says no, generation throws PEFT_E_CALLBACK.
    using piece = std::function<bool(int32_t id, const std::string &text)>;

    explicit session(const model &m) : session(m.get(), nullptr, nullptr, nullptr) {}
    session(const model &m, const adapters &a, const std::string &expression, const options *opts = nullptr)
        : session(m.get(), a.get(), expression.c_str(), raw(opts)) {}
    std::string generate_text(const tokenizer &t, const std::string &prompt, const options *opts = nullptr,
                              const piece &each_token = nullptr) {
        collected c = {&each_token, {}, {}};
        char none[1]; // the text is put together from its pieces, so that it need not be generated twice to know its size
        const peft_status status = peft_session_generate_text(get(), t.get(), prompt.data(), prompt.size(), raw(opts), on_token, &c,
                                                              none, sizeof none, nullptr);
        c.at.cross(status == PEFT_E_BUFFER ? PEFT_OK : status);
        return std::move(c.all);
    }
    void cancel() noexcept { peft_session_cancel(get()); } // from any thread
    peft_session *get() const noexcept { return handle_.get(); }

private:
    session(peft_model *m, peft_adapters *a, const char *expression, const peft_options *opts)
        : handle_(detail::make<peft_session, peft_session_free>(
              [&](peft_session **out) { return peft_session_create(m, a, expression, opts, out); })) {}
    struct collected {
        const piece *call;
        std::string all;
        detail::border at;
    };
    static int32_t on_token(void *user, int32_t id, const char *text, size_t len) {
        collected *c = static_cast<collected *>(user);
        return c->at.run([&] {
            const std::string one(text != nullptr ? text : "", len);
            c->all += one;
            return !*c->call || (*c->call)(id, one);
        });
    }
    detail::owner<peft_session, peft_session_free> handle_;
};

} // namespace peft

#endif
