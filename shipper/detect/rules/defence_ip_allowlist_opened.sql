-- A range without a prefix is one address. What is no range at all has no prefix either.
SELECT
    * EXCEPT (wide),
    coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), nullIf(apiKeyID, ''), '(nobody)') AS entity,
    concat('lets in ', arrayStringConcat(arraySlice(wide, 1, 10), ', ')) AS detail
FROM
(
    SELECT
        *,
        arrayFilter(
            range -> toUInt16OrDefault(extract(range, '/([0-9]{1,3})\\s*$'), toUInt16(999))
                < if(position(range, ':') > 0, {ipv6_prefix:UInt32}, {ipv4_prefix:UInt32}),
            JSONExtract(rawLog, eventType, 'allowed_ips', 'Array(String)')) AS wide
    FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
    WHERE eventType IN ('ip_allowlist.created', 'ip_allowlist.updated')
)
WHERE notEmpty(wide)
