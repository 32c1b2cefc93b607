-- KEYS: 1 alive   ARGV: 1 replica, 2 the mark it knows, 3 proposal, 4 how many pokes are acknowledged, then s and count
-- of each, then the tenants whose log it follows
-- Returns {'reborn', mark}, {'buried'}
-- or {'alive', {replica, beat, ...}, owned, {s, count, ...}, due, {newest id|'', ...}}.
local rid, acknowledged = ARGV[1], tonumber(ARGV[4])

local mark = reborn(rid, ARGV[2], ARGV[3])
if mark then return { 'reborn', mark } end
if not is_alive(rid) then return { 'buried' } end

redis.call('HINCRBY', alive(), rid, 1)
if AGREEMENT_MS > 0 and redis.call('PEXPIRE', fleet(), AGREEMENT_MS) == 0 then
  redis.call('SET', fleet(), AGREEMENT, 'PX', AGREEMENT_MS)
end
for at = 5, 3 + 2 * acknowledged, 2 do
  if redis.call('HGET', poke(rid), ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', poke(rid), ARGV[at]) end
end
local newest = {}
for at = 5 + 2 * acknowledged, #ARGV do
  newest[#newest + 1] = redis.call('HGET', meta(ARGV[at]), 'last') or ''
  -- A log that somebody follows stays, however long nothing is told: were it gone, its readers would have to be healed.
  redis.call('PEXPIRE', meta(ARGV[at]), LOG_AGE_MS)
  redis.call('PEXPIRE', log(ARGV[at]), LOG_AGE_MS)
end
local beats = redis.call('HGETALL', alive())
for at = 2, #beats, 2 do beats[at] = string.gsub(beats[at], 'x', '') end
return {
  'alive', beats, redis.call('SCARD', runs(rid)), redis.call('HGETALL', poke(rid)), redis.call('ZCARD', due()), newest,
}
