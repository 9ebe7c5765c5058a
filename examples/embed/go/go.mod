module example.org/shardyfusion-lookup

go 1.19
