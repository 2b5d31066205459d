-- (no record) → claimed, released → claimed, claimed → claimed under a new lease.
-- An expired challenge is refused if there is no record of it: its nonce may have been signed, and Redis may have forgotten
-- the record because the clock was set ahead. No record is forgotten before its challenge expires.
-- KEYS[3]  the pointer from customer and owner to the newest id
-- ARGV     3 lease (µs)  4 retention (ms)  5 message_hash  6 customer_id  7 owner  8 forward  9 issued_at  10 expires_at

local leased_until = now + ARGV[3]
local message_hash, customer_id, forward, expires_at = ARGV[5], ARGV[6], ARGV[8], ARGV[10]

if not record then
  if now >= tonumber(expires_at) then
    return {'expired', now}
  end
  move('claimed', math.max(expires_at, leased_until), 'message_hash', message_hash, 'customer_id', customer_id,
    'owner', ARGV[7], 'forward', forward, 'issued_at', ARGV[9], 'expires_at', expires_at, 'attempts', 0, 'fence', 1,
    'leased_until', leased_until, 'created_at', now)
  local kept = math.max(ARGV[4], math.ceil((expires_at - now) / 1000) + 1)
  redis.call('PEXPIRE', KEYS[1], kept)
  redis.call('SET', KEYS[3], id, 'PX', kept)
  return result('granted')
end
if record.message_hash ~= message_hash then
  return result('nonce_reused')
end
if record.customer_id ~= customer_id then
  return result('other_customer')
end
if forward == '1' and not record.forward and not FINAL[record.state] then
  if record.state == 'signed' then
    redis.call('ZADD', KEYS[2], now, id)
  end
  redis.call('HSET', KEYS[1], 'forward', 1)
end
if not MOVES[record.state .. '>claimed'] then
  return result('past_signing')
end
if record.state == 'claimed' and is_leased() then
  return result(is_repeat() and 'granted' or 'leased_elsewhere')
end
move('claimed', math.max(record.expires_at, leased_until), 'fence', record.fence + 1, 'leased_until', leased_until,
  'code', '')
return result('granted')
