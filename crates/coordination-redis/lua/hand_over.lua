-- KEYS: 1 lease   ARGV: 1 s, 2 attempt, 3 delay in ms
local s = ARGV[1]

local owner, holder = unpack(redis.call('HMGET', lease(s), 'rid', 'att'))
if holder == ARGV[2] then
  disown(s, owner, now_ms() + ARGV[3])
  wake_all()
end
