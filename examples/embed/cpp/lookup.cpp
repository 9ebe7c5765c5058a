// lookup PREFIX KEY...    integer keys, in one batch
#include <cstdlib>
#include <iostream>

#include "shardyfusion.hpp"

int main(int argc, char **argv)
try {
    if (argc < 3) {
        std::cerr << "usage: lookup PREFIX KEY...\n";
        return 2;
    }
    shardyfusion::runtime rt;
    shardyfusion::reader reader(rt, argv[1]);
    std::vector<sf_key> keys;

    for (int i = 2; i < argc; i++)
        keys.push_back(shardyfusion::key(static_cast<std::int64_t>(std::strtoll(argv[i], nullptr, 10))));
    auto values = reader.multi_get(keys);
    for (std::size_t i = 0; i < values.size(); i++)
        std::cout << argv[i + 2] << " = " << (values[i] ? std::string(values[i]->view()) : "(absent)") << '\n';
    return 0;
} catch (const shardyfusion::error &e) {
    std::cerr << e.what() << '\n';
    return 1;
}
