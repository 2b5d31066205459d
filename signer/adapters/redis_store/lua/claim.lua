-- (nothing) → claimed, released → claimed, claimed → claimed under a new lease.
-- KEYS[3]  the pointer from customer and owner to the newest id
-- ARGV     3 lease (µs)  4 retention (ms)  5 message_hash  6 customer_id  7 owner  8 forward  9 issued_at  10 expires_at

local leased_until = now + ARGV[3]
local message_hash, customer_id, forward, expires_at = ARGV[5], ARGV[6], ARGV[8], ARGV[10]

if not record then
  move('claimed', math.max(expires_at, leased_until), 'message_hash', message_hash, 'customer_id', customer_id,
    'owner', ARGV[7], 'forward', forward, 'issued_at', ARGV[9], 'expires_at', expires_at, 'attempts', 0, 'fence', 1,
    'leased_until', leased_until, 'created_at', now)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('SET', KEYS[3], id, 'PX', ARGV[4])
  return answer('mine')
end
if record.message_hash ~= message_hash then
  return answer('nonce_reused')
end
if record.customer_id ~= customer_id then
  return answer('bound_elsewhere')
end
if forward == '1' and not record.forward and not FINAL[record.state] then
  redis.call('HSET', KEYS[1], 'forward', 1)
  if record.state == 'signed' then
    redis.call('ZADD', KEYS[2], now, id)
  end
end
if not MOVES[record.state .. '>claimed'] then
  return answer('known')
end
if record.state == 'claimed' and leased() then
  return answer(repeated() and 'mine' or 'held')
end
move('claimed', math.max(record.expires_at, leased_until), 'fence', record.fence + 1, 'leased_until', leased_until,
  'code', '')
return answer('mine')
