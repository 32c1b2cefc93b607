-- KEYS: 1 lease   ARGV: 1 s
local s = ARGV[1]
if redis.call('EXISTS', lease(s)) == 0 then
  create(s)
  redis.call('ZADD', due(), now_ms(), s)
  wake_all()
end
