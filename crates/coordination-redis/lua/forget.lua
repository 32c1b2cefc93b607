-- KEYS: 1 lease   ARGV: 1 s
drop(ARGV[1])
