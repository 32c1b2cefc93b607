-- KEYS: 1 lease   ARGV: 1 tenant, 2 s, 3 attempt, 4 the newest ticket seen, 5... entries
-- Returns 'done', 'more' or 'gone'.
local s = ARGV[2]

local holder, want = unpack(redis.call('HMGET', lease(s), 'att', 'want'))
if holder ~= ARGV[3] then return 'gone' end
if tonumber(want) > tonumber(ARGV[4]) then return 'more' end
append(ARGV[1], 5)
drop(s)
return 'done'
