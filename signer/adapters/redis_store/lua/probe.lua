-- Runs every command that the moves run, on keys beside theirs: what the server, its role, its memory or the user's ACL
-- do not allow shows here, and not half-way through a move.
-- KEYS as in claim.lua, but for names that end in `probe`.

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
