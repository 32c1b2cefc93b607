-- KEYS: 1 lease
-- ARGV: 1 s, 2 replica, 3 the mark it knows, 4 proposal, 5 attempt, 6 kind, 7 ticket, 8 '1' if it was open before
-- Returns {'won'}, {'waiting'}, {'busy'} or {'reborn', mark}.
local s, rid, att, is_exclusive = ARGV[1], ARGV[2], ARGV[5], ARGV[6] == 'exclusive'

local mark = reborn(rid, ARGV[3], ARGV[4])
if mark then return { 'reborn', mark } end

local owner, holder = unpack(redis.call('HMGET', lease(s), 'rid', 'att'))
if holder == att then return { 'won' } end
if owner and owner ~= '' then
  if is_exclusive then return { 'busy' } end
  raise_want(s, ARGV[7])
  poke_owner(s)
  return { 'waiting' }
end

-- A buried replica may wish before it knows: what it gets nobody could bury again. Somebody alive is to take it.
local may_own = is_alive(rid)
if is_exclusive and (ARGV[8] == '1' or not may_own) then return { 'busy' } end
if not owner then create(s) end
raise_want(s, ARGV[7])
if may_own then
  redis.call('HSET', lease(s), 'kind', ARGV[6])
  own(s, rid, att)
  return { 'won' }
end
redis.call('ZADD', due(), 'NX', now_ms(), s)
wake_all()
return { 'waiting' }
