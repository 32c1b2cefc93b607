-- KEYS: 1 lock   ARGV: 1 token, 2 TTL in ms
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
