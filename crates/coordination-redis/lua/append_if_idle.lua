-- KEYS: 1 lease   ARGV: 1 tenant, 2 s, 3... entries
if redis.call('EXISTS', lease(ARGV[2])) == 0 then append(ARGV[1], 3) end
