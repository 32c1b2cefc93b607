-- KEYS: 1 lease   ARGV: 1 s, 2 '1' to raise the abort flag, too
local s = ARGV[1]
if ARGV[2] == '1' and redis.call('EXISTS', lease(s)) == 1 then redis.call('HSET', lease(s), 'abort', 1) end
poke_owner(s)
