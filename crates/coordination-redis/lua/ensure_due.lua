-- KEYS: 1 lease   ARGV: 1 s, 2 the mark it knows
-- Returns 1, or 0 where this server bears another mark.
local s = ARGV[1]
if redis.call('GET', born()) ~= ARGV[2] then return 0 end
if redis.call('EXISTS', lease(s)) == 0 then
  create(s)
  redis.call('ZADD', due(), now_ms(), s)
  wake_all()
end
return 1
