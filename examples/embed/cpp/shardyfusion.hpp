// The reading half of libshardyfusion for C++17: handles that release themselves, errors as exceptions. One header; copy it and
// make it yours. Any thread may use a reader; a value belongs to whoever holds it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardyfusion/reader.h>

namespace shardyfusion {

class error : public std::runtime_error {
public:
    explicit error(const sf_error &e) : std::runtime_error(e.message), code_(e.code), object_(e.object) {}
    sf_status code() const noexcept { return code_; }
    bool retryable() const noexcept { return sf_status_is_retryable(code_); }
    const std::string &object() const noexcept { return object_; } // URL of the stored object, or empty

private:
    sf_status code_;
    std::string object_;
};

namespace detail {
struct release {
    void operator()(sf_runtime *p) const noexcept { sf_runtime_release(p); }
    void operator()(sf_reader *p) const noexcept { sf_reader_free(p); }
};

template <typename F> void check(F &&f)
{
    sf_error e;

    sf_error_init(&e);
    if (std::forward<F>(f)(&e) != SF_OK)
        throw error(e);
}
} // namespace detail

inline sf_key key(std::int64_t i)
{
    return sf_key_int(i);
}
inline sf_key key(std::string_view text)
{
    return sf_key_str(text.data(), text.size());
} // borrows the text

// Bytes of an answer, without a copy: they stay where the cache has them until this goes.
class value {
public:
    explicit value(const sf_value &v) noexcept : v_(v) {}
    value(value &&other) noexcept : v_(std::exchange(other.v_, sf_value{})) {}
    value &operator=(value &&other) noexcept
    {
        std::swap(v_, other.v_);
        return *this;
    }
    ~value() { sf_value_release(&v_); }
    std::string_view view() const noexcept { return {reinterpret_cast<const char *>(v_.bytes.p), v_.bytes.n}; }

private:
    sf_value v_;
};

class runtime {
public:
    explicit runtime(std::uint64_t cache_bytes = std::uint64_t{256} << 20)
    {
        sf_runtime_options options;
        sf_runtime *p = nullptr;

        sf_runtime_options_init(&options, sizeof(options));
        options.cache_bytes = cache_bytes;
        detail::check([&](sf_error *e) { return sf_runtime_new(&p, &options, e); });
        handle_.reset(p);
    }
    sf_runtime *get() const noexcept { return handle_.get(); }

private:
    std::unique_ptr<sf_runtime, detail::release> handle_;
};

class reader {
public:
    reader(const runtime &rt, const std::string &prefix)
    {
        sf_reader *p = nullptr;

        detail::check([&](sf_error *e) { return sf_reader_open(&p, rt.get(), prefix.c_str(), nullptr, e); });
        handle_.reset(p);
    }

    std::optional<value> get(const sf_key &k, std::int64_t timeout_ms = 1000) const
    {
        sf_value v{};

        detail::check([&](sf_error *e) { return sf_reader_get(handle_.get(), &k, timeout_ms, &v, e); });
        if (!v.found)
            return std::nullopt;
        return value(v);
    }

    // One operation for all keys; answers in the order of the keys.
    std::vector<std::optional<value>> multi_get(const std::vector<sf_key> &keys, std::int64_t timeout_ms = 1000) const
    {
        std::vector<sf_value> found(keys.size());
        std::vector<std::optional<value>> out;

        out.reserve(keys.size());
        detail::check([&](sf_error *e) {
            return sf_reader_multi_get(handle_.get(), keys.data(), keys.size(), timeout_ms, found.data(), e);
        });
        for (const sf_value &v : found)
            out.push_back(v.found ? std::optional<value>(value(v)) : std::nullopt);
        return out;
    }

    bool refresh(std::int64_t timeout_ms = 60000)
    {
        bool changed = false;

        detail::check([&](sf_error *e) { return sf_reader_refresh(handle_.get(), timeout_ms, &changed, e); });
        return changed;
    }

private:
    std::unique_ptr<sf_reader, detail::release> handle_;
};

} // namespace shardyfusion
