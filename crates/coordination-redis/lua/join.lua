-- KEYS: 1 born   ARGV: 1 replica, 2 proposal
-- Returns the mark.
redis.call('SET', born(), ARGV[2], 'NX')
redis.call('HSETNX', alive(), ARGV[1], 0)
return redis.call('GET', born())
