-- KEYS: 1 log   ARGV: 1 tenant, 2 cursor, 3 how many entries at once
-- Returns 'more' or 'done'. Begins at the oldest: as long as the cursor is there, more may be left.
local tenant, cursor = ARGV[1], ARGV[2]

if #redis.call('XRANGE', log(tenant), cursor, cursor) == 0 then return 'done' end
local bytes = tonumber(redis.call('HGET', meta(tenant), 'bytes'))
for _, entry in ipairs(redis.call('XRANGE', log(tenant), '-', cursor, 'COUNT', ARGV[3])) do
  redis.call('XDEL', log(tenant), entry[1])
  bytes = bytes - #entry[2][4] - ENTRY_OVERHEAD
end
local oldest = redis.call('XRANGE', log(tenant), '-', '+', 'COUNT', 1)[1]
redis.call('HSET', meta(tenant), 'bytes', bytes, 'oldest', oldest and oldest[2][2] or now_ms())
return 'more'
