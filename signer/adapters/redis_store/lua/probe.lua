-- Runs every command of the scripts on keys that no challenge has, so that readiness shows what the server, its role, its
-- memory or the ACL of the user forbids, before a move fails because of it.
-- KEYS as in claim.lua, with names that end in `probe`. ARGV[1] only takes memory while the script runs; it is not stored.

redis.call('TIME')
redis.call('HSET', KEYS[1], 'probe', 1, 'submission', '')
redis.call('HMGET', KEYS[1], 'probe')
redis.call('HDEL', KEYS[1], 'submission')
redis.call('PEXPIRE', KEYS[1], 60000)
redis.call('SET', KEYS[3], 'probe', 'PX', 60000)
redis.call('GET', KEYS[3])
redis.call('ZADD', KEYS[2], 1, 'probe')
redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', 1, 'LIMIT', 0, 1)
redis.call('ZREM', KEYS[2], 'probe')
return 'OK'
