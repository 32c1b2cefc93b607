-- Appends the entries in ARGV from `first` on to a tenant's log and tells its subscribers. Seven values an entry:
--   session|'', fence|'', record|'', version, status|'', 64 random bits, body
-- Returns the indexes (from 0) of the entries that are fenced out.
--
-- log    stream, id <n>-<random>: n grows by one, the random half makes the id unlike any of another log's. Fields: t,
--        the time of the entry, and b, its body.
-- meta   hash of the log: last (the newest id), bytes (what its entries take), oldest (the time of its oldest entry)
--
-- The log is capped by its own count of bytes, which is exact where a MAXLEN by number could only guess, and by age.
-- What is dropped for its age is dropped by the next append; both keys expire together when no append follows and nobody follows it.
local ENTRY_OVERHEAD = 128
local TRIMMED_AT_ONCE = 200

-- Drops the oldest entries while all are too large or they too old, never the newest. Bounded: the next append goes on.
local function trim(tenant, now, bytes, oldest)
  for _ = 1, TRIMMED_AT_ONCE do
    if bytes <= LOG_BYTES and oldest > now - LOG_AGE_MS then break end
    local first = redis.call('XRANGE', log(tenant), '-', '+', 'COUNT', 2)
    if #first < 2 then break end
    bytes = bytes - #first[1][2][4] - ENTRY_OVERHEAD
    oldest = tonumber(first[2][2][2])
    redis.call('XTRIM', log(tenant), 'MINID', first[2][1])
  end
  return bytes, oldest
end

-- True if this version of the record, or a newer one, is out; else remembers that this one is. Versions are plain
-- digits of one width, so that they compare alike in every locale.
local function is_old(s, record, version)
  if record == '' then return false end
  local out = redis.call('HGET', versions(s), record) or redis.call('HGET', former_versions(s), record)
  if out and version <= out then return true end
  remember(s, record, version)
  return false
end

local function append(tenant, first)
  local last, bytes, oldest = unpack(redis.call('HMGET', meta(tenant), 'last', 'bytes', 'oldest'))
  local now = now_ms()
  local number = last and tonumber(string.match(last, '^%d+')) or 0
  bytes, oldest = tonumber(bytes or 0), tonumber(oldest or now)
  local message, inlined = { (last or '') .. '\n' }, 0
  local refused, fences = {}, {}
  for at = first, #ARGV, 7 do
    local session, fence, record, version, status, random, body = unpack(ARGV, at, at + 6)
    local s = tenant .. '/' .. session
    if fences[s] == nil then fences[s] = redis.call('HGET', lease(s), 'fence') end
    if fence ~= '' and fence ~= fences[s] then
      refused[#refused + 1] = (at - first) / 7
    elseif not is_old(s, record, version) then
      if status ~= '' and fences[s] then set_status(s, status) end
      number = number + 1
      last = string.format('%.0f', number) .. '-' .. random
      redis.call('XADD', log(tenant), last, 't', now, 'b', body)
      bytes = bytes + #body + ENTRY_OVERHEAD
      -- What is too long for a message is left in the log, from where the subscriber reads it.
      if inlined + #body <= INLINE_BYTES then
        inlined = inlined + #body
        message[#message + 1] = last .. ' ' .. #body .. '\n' .. body
      else
        message[#message + 1] = last .. ' -\n'
      end
    end
  end
  if #message > 1 then
    bytes, oldest = trim(tenant, now, bytes, oldest)
    redis.call('HSET', meta(tenant), 'last', last, 'bytes', bytes, 'oldest', oldest)
    redis.call('PEXPIRE', meta(tenant), LOG_AGE_MS)
    redis.call('PEXPIRE', log(tenant), LOG_AGE_MS)
    redis.call('PUBLISH', log(tenant), table.concat(message))
  end
  return refused
end

