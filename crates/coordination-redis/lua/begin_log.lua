-- KEYS: 1 log   ARGV: 1 tenant, then an entry
if redis.call('XLEN', KEYS[1]) == 0 then append(ARGV[1], 2) end
