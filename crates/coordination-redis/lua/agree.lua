-- KEYS: 1 fleet
-- Returns {what the fleet agreed on, how long that lasts in milliseconds}; it is this replica's if there was nothing.
if AGREEMENT_MS > 0 then redis.call('SET', fleet(), AGREEMENT, 'NX', 'PX', AGREEMENT_MS) end
return { redis.call('GET', fleet()) or '', redis.call('PTTL', fleet()) }
