-- KEYS: 1 alive   ARGV: 1 replica, 2 the beat that was seen, 3 how many leases at once
-- Returns {'lives'}, or {'more'|'done', number of leases freed}. The mark makes a burial that broke off go on: the
-- replica is dead for itself, while others still see its last beat until nothing is left of it.
local rid, beat = ARGV[1], ARGV[2]

local current = redis.call('HGET', alive(), rid)
if current and current ~= beat and current ~= 'x' .. beat then return { 'lives' } end
redis.call('HSET', alive(), rid, 'x' .. beat)

local leases = redis.call('SRANDMEMBER', runs(rid), ARGV[3])
-- A run on trial is what the replica died of, as far as anybody can tell: the others are spared.
local suspect = redis.call('GET', trial(rid))
for _, s in ipairs(leases) do
  disown(s, rid, now_ms())
  redis.call('HSET', lease(s), 'former', suspect and suspect ~= s and 'spared' or 'failed')
end
if #leases > 0 then wake_all() end
if redis.call('SCARD', runs(rid)) > 0 then return { 'more', #leases } end
redis.call('HDEL', alive(), rid)
redis.call('DEL', poke(rid), trial(rid))
return { 'done', #leases }
