-- KEYS: 1 lease   ARGV: 1 s, 2 the mark it knows
local s = ARGV[1]
if redis.call('GET', born()) == ARGV[2] and redis.call('EXISTS', lease(s)) == 0 then
  create(s)
  redis.call('ZADD', due(), now_ms(), s)
  wake_all()
end
