-- KEYS: 1 due   ARGV: 1 replica, 2 the mark it knows, 3... attempts
-- Returns {s, attempt, ...}. A repeated call says again what the first one took.
local rid = ARGV[1]
if redis.call('GET', born()) ~= ARGV[2] or not is_alive(rid) then return {} end

local unused, claimed = {}, {}
for at = 3, #ARGV do unused[ARGV[at]] = true end
for _, s in ipairs(redis.call('SMEMBERS', runs(rid))) do
  local att = redis.call('HGET', lease(s), 'att')
  if unused[att] then
    unused[att] = nil
    claimed[#claimed + 1], claimed[#claimed + 2] = s, att
  end
end

local attempts = {}
for at = 3, #ARGV do
  if unused[ARGV[at]] then attempts[#attempts + 1] = ARGV[at] end
end
local ready = redis.call('ZRANGEBYSCORE', due(), '-inf', now_ms(), 'LIMIT', 0, #attempts)
for index, s in ipairs(ready) do
  own(s, rid, attempts[index])
  claimed[#claimed + 1], claimed[#claimed + 2] = s, attempts[index]
end
return claimed
