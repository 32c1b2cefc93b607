-- What several operations do with a lease. `s` is "tenant/session"; `rid`, `att` and `fence` are '' where none is.
--
-- lease hash: rid att fence want status abort former.  Kept in step with it: the owner's `runs` set, `due` while there is
-- no owner, and `busy`, which holds the status of each lease of a tenant.

local BUSY = '{"type":"busy"}'

-- Milliseconds by this server's clock: for back-off and retention only.
local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- A replica under burial has an 'x' before its last beat: it is dead, but its leases are still being freed.
local function is_alive(rid)
  local beat = redis.call('HGET', alive(), rid)
  return beat and string.sub(beat, 1, 1) ~= 'x'
end

-- The mark to report to a replica that knows another one, else false. Who is told is entered into the new fleet at
-- once, so that what it adopts there can be buried.
local function reborn(rid, known, proposal)
  redis.call('SET', born(), proposal, 'NX')
  local mark = redis.call('GET', born())
  if mark == known then return false end
  redis.call('HSETNX', alive(), rid, 0)
  return mark
end

local function set_status(s, status)
  local tenant, session = string.match(s, '^([^/]*)/(.*)$')
  redis.call('HSET', lease(s), 'status', status)
  redis.call('HSET', busy(tenant), session, status)
end

-- Remembers the newest version of a record that is out, or as 'fence' the newest fence that has begun. A generation of them that
-- is full makes room for the next, which knows the fence, too; the one before it is forgotten.
local function remember(s, what, version)
  local is_full = redis.call('HLEN', versions(s)) >= VERSIONS_OF_A_GENERATION
  if is_full and redis.call('HEXISTS', versions(s), what) == 0 then
    local fence = redis.call('HGET', versions(s), 'fence')
    redis.call('RENAME', versions(s), former_versions(s))
    if fence then redis.call('HSET', versions(s), 'fence', fence) end
  end
  redis.call('HSET', versions(s), what, version)
  redis.call('PEXPIRE', versions(s), LOG_AGE_MS)
end

-- True if a newer fence than this one has begun: kept beside the versions of what was told, since the lease may be gone. A wish
-- that arrives late gives an attempt its lease back after another has done the whole work.
local function is_outrun(s, fence)
  local newest = redis.call('HGET', versions(s), 'fence')
  return newest and tonumber(fence) < tonumber(newest)
end

local function create(s)
  redis.call('HSET', lease(s), 'rid', '', 'att', '', 'fence', '', 'want', 0, 'abort', 0)
  set_status(s, BUSY)
end

local function own(s, rid, att)
  redis.call('HSET', lease(s), 'rid', rid, 'att', att)
  redis.call('SADD', runs(rid), s)
  redis.call('ZREM', due(), s)
end

local function disown(s, rid, from)
  redis.call('HSET', lease(s), 'rid', '', 'att', '')
  redis.call('SREM', runs(rid), s)
  redis.call('ZADD', due(), from, s)
end

local function drop(s)
  local rid = redis.call('HGET', lease(s), 'rid')
  if not rid then return end
  local tenant, session = string.match(s, '^([^/]*)/(.*)$')
  redis.call('DEL', lease(s))
  redis.call('HDEL', busy(tenant), session)
  redis.call('ZREM', due(), s)
  redis.call('SREM', runs(rid), s)
end

local function raise_want(s, want)
  if tonumber(redis.call('HGET', lease(s), 'want')) < tonumber(want) then
    redis.call('HSET', lease(s), 'want', want)
  end
end

local function poke_owner(s)
  local rid, fence = unpack(redis.call('HMGET', lease(s), 'rid', 'fence'))
  if not rid or rid == '' then return end
  redis.call('HINCRBY', poke(rid), s, 1)
  redis.call('PUBLISH', control(rid), s .. ' ' .. fence)
end

local function wake_all()
  redis.call('PUBLISH', wake(), '')
end

