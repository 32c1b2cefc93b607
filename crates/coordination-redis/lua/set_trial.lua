-- KEYS: 1 alive   ARGV: 1 replica, 2 s, or '' for none
-- A buried replica leaves no mark: nobody would remove it.
if ARGV[2] == '' then
  redis.call('DEL', trial(ARGV[1]))
elseif is_alive(ARGV[1]) then
  redis.call('SET', trial(ARGV[1]), ARGV[2])
end
