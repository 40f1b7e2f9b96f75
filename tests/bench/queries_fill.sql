-- Made-up events, the {count} from the {first} on of {rows} in {span} seconds from {start} on.
INSERT INTO openai_audit_logs
WITH
    {first:UInt64} + number AS n,
    cityHash64(n, 'a') AS h1, cityHash64(n, 'b') AS h2, cityHash64(n, 'c') AS h3,
    multiIf(h1 % 100 < 70, 'acme', h1 % 100 < 90, 'globex', h1 % 100 < 98, 'initech', 'umbrella') AS source,
    toUInt32({start:UInt32} + intDiv(n * {span:UInt64}, {rows:UInt64})) AS live,
    multiIf(h2 % 100000 < 2, h3 % 2592000, h2 % 1000 < 1, h3 % 172800, h2 % 100 < 1, h3 % 3600, 5 + h3 % 60) AS delay,
    live - delay AS happened,
    -- received as it happens, or within the hour before {until}: the newest first, some windows at a time
    if({backfilled:Bool} AND live < {until:UInt32}, toUInt32({until:UInt32} - 3600 + intDiv(3600 * ({until:UInt32} - live), {span:UInt64}) - cityHash64(intDiv(n, 10000), 'w') % 200), live) AS landed,
    -- a few actors do most, many do little
    toUInt32(800 * pow((h3 % 1000003) / 1000003, 2)) AS person,
    cityHash64(n, 'd') % 1000 AS dice,
    multiIf(dice < 300, 'login.succeeded', dice < 340, 'login.failed', dice < 560, 'logout.succeeded', dice < 600, 'api_key.created', dice < 640, 'api_key.updated', dice < 660, 'api_key.deleted', dice < 700, 'project.updated', dice < 720, 'user.added', dice < 740, 'user.updated', dice < 760, 'invite.sent', dice < 780, 'invite.accepted', dice < 800, 'rate_limit.updated', dice < 820, 'service_account.created', dice < 840, 'role.assignment.created', dice < 900, 'resource.shared', dice < 950, 'group.updated', dice < 980, 'certificate.updated', dice < 999, 'organization.updated', 'ip_allowlist.updated') AS type,
    dice >= 340 AND h2 % 10 < 3 AS by_key,
    concat('user-', substring(hex(cityHash64(person, source)), 1, 12)) AS user,
    concat('person', toString(person), '@', source, '.example') AS email,
    -- five addresses each at home, one sign-in in 300 from anywhere
    if(h2 % 300 = 7, cityHash64(h3, 'far') % 4000, 4000 + person * 5 + h3 % 5) AS address,
    concat('198.', toString(18 + intDiv(address, 65536)), '.', toString(intDiv(address, 256) % 256), '.', toString(address % 256)) AS ip,
    ['US','DE','FR','GB','JP','IN','BR','NL','SE','PL','CA','AU','ES','IT','KR'][1 + if(address < 4000, address, person) % 15] AS country,
    concat('t13d1715h2_5b57614c22b0_', substring(lower(hex(cityHash64(person, h3 % 40 = 0))), 1, 12)) AS fingerprint,
    concat('audit_log-', lower(hex(cityHash64(n, 'id'))), substring(lower(hex(h1)), 1, 8)) AS event,
    concat('proj_', toString(h3 % 60)) AS project,
    concat('key_', lower(hex(h2))) AS object
SELECT
    'security', source, 'openai', 0, landed, lower(hex(sipHash128(source, event))), happened, type, event,
    if(by_key, '', ip), if(by_key, '', country), if(by_key, 0, 64500 + address % 300), if(by_key, '', concat('Network ', toString(address % 300))), if(by_key, '', concat('City ', toString(address % 200))), multiIf(by_key, '', address % 500 = 1, 'hosting', 'Cable/DSL'), if(by_key, '', concat('Provider ', toString(address % 300))), if(by_key, 0, address % 90), if(by_key, 0, address % 180), if(by_key, '', 'business'),
    '', '', 0, '', '', '', '', 0, 0, '',
    if(by_key, map('id', concat('svc-', toString(person % 40)), 'type', 'service_account'), map('id', user, 'email', email, 'type', 'user')),
    if(by_key, map('lane', 'organization', 'category', splitByChar('.', type)[1]), map('lane', 'organization', 'category', splitByChar('.', type)[1], 'region', concat('Region ', toString(address % 200)), 'regionCode', toString(address % 200), 'userAgent', concat('Mozilla/5.0 (X11; Linux x86_64; rv:', toString(130 + person % 15), '.0) Gecko/20100101 Firefox/', toString(130 + person % 15), '.0'), 'ja3', lower(hex(MD5(fingerprint))), 'ja4', fingerprint)),
    if(dice < 560, [], [concat('{"type":"', splitByChar('.', type)[1], '","id":"', object, '"}'), concat('{"type":"project","id":"', project, '","name":"Project ', toString(h3 % 60), '"}')]),
    'openai',
    if(address % 50 = 0, [(map('office', 'Vienna'), 'src.ip', 'offices', 'cidr', '198.18.0.0/16')], []),
    dice < 560,
    concat('{"object":"organization.audit_log","id":"', event, '","type":"', type, '","effective_at":', toString(happened), ',"project":{"id":"', project, '","name":"Project ', toString(h3 % 60), '"},"actor":{"type":"session","session":{"user":{"id":"', user, '","email":"', email, '"},"ip_address":"', ip, '","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:', toString(130 + person % 15), '.0) Gecko/20100101 Firefox/', toString(130 + person % 15), '.0","ja3":"', lower(hex(MD5(fingerprint))), '","ja4":"', fingerprint, '","ip_address_details":{"country":"', country, '","city":"City ', toString(address % 200), '","region":"Region ', toString(address % 200), '","region_code":"', toString(address % 200), '","asn":"AS', toString(64500 + address % 300), '","latitude":"', toString(address % 90), '","longitude":"', toString(address % 180), '"}}},"', type, '":{"id":"', object, '","data":{"scopes":["api.model.read","api.model.request"],"request":"', lower(hex(sipHash128(n))), '"}}}'),
    type, if(by_key, 'api_key', 'session'), if(by_key, '', ip), if(by_key, '', user), if(by_key, '', email), if(by_key, concat('key_', toString(person)), ''), if(by_key, 'service_account', ''), if(by_key, concat('svc-', toString(person % 40)), ''), project, concat('Project ', toString(h3 % 60))
FROM numbers({count:UInt64})
