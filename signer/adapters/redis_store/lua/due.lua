-- Names what is due in one shard, the longest overdue first.
-- KEYS[1] the shard's index    ARGV[1] how many at most

local time = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time[1] * 1000000 + time[2], 'LIMIT', 0, ARGV[1])
