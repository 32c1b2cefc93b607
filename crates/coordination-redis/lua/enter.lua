-- KEYS: 1 lease
-- ARGV: 1 s, 2 replica, 3 the mark it knows, 4 proposal, 5 attempt, 6 ticket, 7 '1' if another is to run
-- Returns {'won'}, {'waiting'} or {'reborn', mark}.
local s, rid, att = ARGV[1], ARGV[2], ARGV[5]

local mark = reborn(rid, ARGV[3], ARGV[4])
if mark then return { 'reborn', mark } end

local owner, holder = unpack(redis.call('HMGET', lease(s), 'rid', 'att'))
if holder == att then return { 'won' } end
if owner and owner ~= '' then
  raise_want(s, ARGV[6])
  poke_owner(s)
  return { 'waiting' }
end

if not owner then create(s) end
raise_want(s, ARGV[6])
-- A buried replica may wish before it knows: what it gets nobody could bury again. Somebody alive is to take it.
if ARGV[7] ~= '1' and is_alive(rid) then
  own(s, rid, att)
  return { 'won' }
end
redis.call('ZADD', due(), 'NX', now_ms(), s)
wake_all()
return { 'waiting' }
