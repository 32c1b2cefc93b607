-- KEYS: 1 log   ARGV: 1 tenant, 2 replica, 3 batch number, 4... entries
-- Returns the indexes of the entries that are fenced out, with commas between. A batch that was appended says so again.
local tenant, rid, number = ARGV[1], ARGV[2], tonumber(ARGV[3])

local last = redis.call('GET', batch(tenant, rid))
if last then
  local appended, refused = string.match(last, '^(%d+) (.*)$')
  if tonumber(appended) == number then return refused end
  if tonumber(appended) > number then return '' end
end
local refused = table.concat(append(tenant, 4), ',')
redis.call('SET', batch(tenant, rid), ARGV[3] .. ' ' .. refused, 'PX', BATCH_AGE_MS)
return refused
