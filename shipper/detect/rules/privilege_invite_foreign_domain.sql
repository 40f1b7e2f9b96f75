-- The invited address is read from resources, where normalization puts it for every kind of invitation.
WITH
    arrayFirst(email -> email != '', arrayMap(resource -> JSONExtractString(resource, 'email'), resources)) AS email,
    if(position(email, '@') > 0, lower(arrayElement(splitByChar('@', email), -1)), '') AS domain,
    if(position(actorUserEmail, '@') > 0, [lower(arrayElement(splitByChar('@', actorUserEmail), -1))], []) AS inviter,
    arrayFilter(name -> name != '', arrayMap(given -> lower(splitByChar('@', trimBoth(given))[-1]), {own_domains:Array(String)})) AS named,
    if(notEmpty(named), named, inviter) AS own
SELECT *, domain AS entity, concat('invites ', lower(email)) AS detail
FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})
WHERE eventType IN ('invite.sent', 'tenant.user.invited', 'tenant.api_organization_invite.upserted',
        'tenant.chatgpt_workspace_invite.upserted')
    AND domain != '' AND notEmpty(own)
    AND NOT arrayExists(known -> domain = known OR endsWith(domain, concat('.', known)), own)
