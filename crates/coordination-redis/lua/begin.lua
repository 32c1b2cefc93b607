-- KEYS: 1 lease   ARGV: 1 tenant, 2 s, 3 attempt, 4 fence, 5... entries
-- Returns 1, or 0 if the lease is not the attempt's any more.
local s, fence = ARGV[2], ARGV[4]

local holder, begun = unpack(redis.call('HMGET', lease(s), 'att', 'fence'))
if holder ~= ARGV[3] then return 0 end
if begun ~= fence then
  redis.call('HSET', lease(s), 'fence', fence)
  set_status(s, BUSY)
  append(ARGV[1], 5)
end
return 1
