-- KEYS: 1 lease   ARGV: 1 s, 2 replica, 3 attempt, 4 fence
-- Returns 1 if the lease is the attempt's, else 0: another has it, or had it under a newer fence.
local s, rid, att, fence = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local owner, holder, current = unpack(redis.call('HMGET', lease(s), 'rid', 'att', 'fence'))
if not owner then
  if is_outrun(s, fence) then return 0 end
  create(s)
  redis.call('HSET', lease(s), 'fence', fence)
elseif holder == att then
  redis.call('SREM', runs(owner), s)
  -- A failover may have lost that it began: what it says would be refused.
  if not is_outrun(s, fence) then redis.call('HSET', lease(s), 'fence', fence) end
elseif owner ~= '' or current ~= fence then
  return 0
end
own(s, rid, att)
-- Whoever owns a lease has a beat, else nobody could bury it.
redis.call('HSETNX', alive(), rid, 0)
return 1
