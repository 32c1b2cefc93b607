-- KEYS: 1 lease   ARGV: 1 tenant, 2 s, 3 attempt, 4 fence, 5... entries
-- Returns 1, or 0 if the lease is not the attempt's any more, or if a newer fence has begun.
local s, fence = ARGV[2], ARGV[4]

local holder, current = unpack(redis.call('HMGET', lease(s), 'att', 'fence'))
if holder ~= ARGV[3] or is_outrun(s, fence) then return 0 end
-- A lease that was adopted bears its fence before it begins.
if current ~= fence or redis.call('HGET', versions(s), 'fence') ~= fence then
  redis.call('HSET', lease(s), 'fence', fence)
  remember(s, 'fence', fence)
  set_status(s, BUSY)
  append(ARGV[1], 5)
end
return 1
