-- KEYS: 1 lease   ARGV: 1 s, 2 attempt, 3 delay in ms, 4 '1' if the attempt failed
local s = ARGV[1]

local owner, holder = unpack(redis.call('HMGET', lease(s), 'rid', 'att'))
if holder == ARGV[2] then
  disown(s, owner, now_ms() + ARGV[3])
  redis.call('HSET', lease(s), 'former', ARGV[4] == '1' and 'failed' or 'handed over')
  wake_all()
end
