-- Names: what the name of a column, of a key in a document or of a table says about secrets.
-- Made from auditdb/vocabulary.toml by `make reference`: change that file, not this one.
--
-- The bodies are parsed when they are created: nothing is looked up when they run, so that no
-- search_path has to be pinned, which would keep the planner from inlining them.

create or replace function audit.secret_words() returns text
language sql immutable parallel safe
return
    '(?:passw'
    '|passphrase'
    '|pass'
    '|pwd'
    '|pswd'
    '|secret'
    '|token'
    '|hash'
    '|salt'
    '|encrypt'
    '|cipher'
    '|credential'
    '|mnemonic'
    '|phrase'
    '|recovery'
    '|seed'
    '|otp'
    '|pin'
    '|cvv'
    '|cvc'
    '|ssn'
    '|pem'
    '|p12'
    '|pfx'
    '|pkcs'
    '|keystore'
    '|keytab'
    '|psk'
    '|htpasswd'
    '|jwt'
    '|jwk'
    '|pat'
    '|bearer'
    '|auth'
    '|cookie'
    '|srf'
    '|sess'
    '|verif'
    '|assert'
    '|saml'
    '|private'
    '|key'
    '|code'
    '|link'
    '|url'
    '|uri'
    '|conn)';
comment on function audit.secret_words() is
    'Pattern, whatever the case, of which each name of a secret has a part';

create or replace function audit.normal_name(name text) returns text
language sql immutable parallel safe
return lower(regexp_replace(
    regexp_replace(
        regexp_replace(name collate "C", '([a-z0-9])([A-Z])', '\1_\2', 'g'),
        '([A-Z])([A-Z][a-z])', '\1_\2', 'g'),
    '[\x01-/:-@\[-`{-\x7f]+', '_', 'g') collate "C");
comment on function audit.normal_name(text) is
    'A name in lower case with its words apart by "_": clientSecret becomes client_secret';

create or replace function audit.says_secret(name text) returns boolean
language sql immutable parallel safe
return (name collate "C" like '%passw%'
        or name collate "C" like '%passphrase%'
        or name collate "C" like '%pass%' and name collate "C" ~
            '(?:pass_?(code|phrase|word|key_secret)'
            '|(^|_)pass(_?(hash|digest|enc|salt|new|old|confirm(ation)?))?$'
            '|(db|database|auth|smtp|imap|pop3?|ftp|sftp|ldap|bind|user|admin|root|mail|proxy)pas'
            's$)'
        or name collate "C" like '%pwd%' and name collate "C" ~
            '(?:pwd(_?(hash|digest|enc|salt|new|old|confirm(ation)?))?$)'
        or name collate "C" like '%pswd%' and name collate "C" ~
            '(?:(^|_)pswd$)'
        or name collate "C" like '%secret%'
        or name collate "C" like '%token%'
        or name collate "C" like '%hash%' and name collate "C" ~
            '(?:hash(ed|es)?(_|$)'
            '|(^|_)hashed)'
        or name collate "C" like '%salt%' and name collate "C" ~
            '(?:(^|_)salt(s|ed)?$'
            '|(password|hash|crypt|user|auth)salt$)'
        or name collate "C" like '%encrypt%' and name collate "C" ~
            '(?:encrypted'
            '|(^|_)(encrypt|encryption)_(iv|data|value|blob|payload))'
        or name collate "C" like '%cipher%'
        or name collate "C" like '%credential%'
        or name collate "C" like '%mnemonic%'
        or name collate "C" like '%phrase%' and name collate "C" ~
            '(?:(seed|recovery|backup|wallet)_?phrases?$)'
        or name collate "C" like '%recovery%' and name collate "C" ~
            '(?:recovery_?(words?|key|kit|seed)s?$)'
        or name collate "C" like '%seed%' and name collate "C" ~
            '(?:(^|_)(seed|otp_?seed|totp_?seed)s?$)'
        or name collate "C" like '%otp%' and name collate "C" ~
            '(?:totp'
            '|(^|_)(h?otp|otps)(_|$)'
            '|(^|_)otp[a-z]*(secret|seed|code|backup))'
        or name collate "C" like '%pin%' and name collate "C" ~
            '(?:(^|_)pin(_?(code|hash|number|block))?s?$)'
        or name collate "C" like '%cvv%' and name collate "C" ~
            '(?:(^|_)cvv2?$)'
        or name collate "C" like '%cvc%' and name collate "C" ~
            '(?:(^|_)cvc2?$)'
        or name collate "C" like '%ssn%' and name collate "C" ~
            '(?:(^|_)ssn$)'
        or name collate "C" like '%pem%' and name collate "C" ~
            '(?:(^|_)pem$)'
        or name collate "C" like '%p12%' and name collate "C" ~
            '(?:(^|_)p12$)'
        or name collate "C" like '%pfx%' and name collate "C" ~
            '(?:(^|_)pfx$)'
        or name collate "C" like '%pkcs%' and name collate "C" ~
            '(?:(^|_)pkcs_?(8|12)$)'
        or name collate "C" like '%keystore%'
        or name collate "C" like '%keytab%'
        or name collate "C" like '%psk%' and name collate "C" ~
            '(?:(^|_)psk$)'
        or name collate "C" like '%htpasswd%'
        or name collate "C" like '%jwt%' and name collate "C" ~
            '(?:(^|_)jwts?$)'
        or name collate "C" like '%jwk%' and name collate "C" ~
            '(?:(^|_)jwk$)'
        or name collate "C" like '%pat%' and name collate "C" ~
            '(?:(^|_)pats?$)'
        or name collate "C" like '%bearer%' and name collate "C" ~
            '(?:(^|_)bearer$)'
        or name collate "C" like '%auth%' and name collate "C" ~
            '(?:(^|_)(proxy_)?authori[sz]ation(_(header|value|code))?$'
            '|(^|_)(x|http|basic|proxy|digest)_auth(entication)?(_(header|value|info|data))?$)'
        or name collate "C" like '%cookie%' and name collate "C" ~
            '(?:(^|_)(set_)?cookies?(_(id|value|jar|string|header|data))?$)'
        or name collate "C" like '%srf%' and name collate "C" ~
            '(?:(^|_)(csrf|xsrf)(_|$))'
        or name collate "C" like '%sess%' and name collate "C" ~
            '(?:(^|_)(sess|session)_?(key|data|cookie)s?$'
            '|(^|_)(j|php|asp)(_?sess_?id|_?session_?id)$)'
        or name collate "C" like '%verif%' and name collate "C" ~
            '(?:(code|pkce|srp|oauth|password)_?verifier$'
            '|(^|_)card_verification_(value|code)$)'
        or name collate "C" like '%assert%' and name collate "C" ~
            '(?:(^|_)(client|saml)_?assertion$)'
        or name collate "C" like '%saml%' and name collate "C" ~
            '(?:(^|_)saml_?response$)'
        or name collate "C" like '%private%' and name collate "C" ~
            '(?:private_?(key|pem|jwk|exponent|part|bytes|cert|pgp))'
        or name collate "C" like '%key%' and name collate "C" ~
            '(?:(api|access|signing|signature|account|shared|master|encryption|decryption|encrypt'
            ')_?keys?(_|$)'
            '|(ssh|rsa|dsa|ecdsa|ed25519|ssl|tls|pgp|gpg|hmac|aes|des|wireguard)_?keys?$'
            '|(auth|authentication|authorization|license|licence|webhook|integration|deploy)_?key'
            's?$'
            '|(diversification|consumer|server|root|symmetric|wrapped|wrapping|stream|ingest)_?ke'
            'ys?$'
            '|(seed|pre_?shared|subscription|instrumentation|connection|functions?|host)_?keys?$'
            '|(service_role|service|write|admin|activation|unlock|login|pairing|device|network|ap'
            'p)_?keys?$'
            '|(tfa|mfa|two_?factor|2fa|derived|raw|plain|full|clear|enc|data)_?keys?$'
            '|key_?(material|pem|data|value|bytes|pair|json|content)$)'
        or name collate "C" like '%code%' and name collate "C" ~
            '(?:(backup|recovery|scratch|emergency|verification|verify|confirmation|activation)_?'
            'codes?$'
            '|(reset|login|signin|signup|security|pairing|mfa|tfa|2fa|sms|auth|access)_?codes?$'
            '|(invite|invitation|device|user|unlock|one_?time|magic|registration|claim|redeem|joi'
            'n)_?codes?$'
            '|(two_?factor|authori[sz]ation|oauth|grant|rescue|challenge|temporary)_?codes?$)'
        or name collate "C" like '%link%' and name collate "C" ~
            '(?:(magic|reset|invite|invitation|activation|confirmation|verification|login|signed)'
            '_?link$'
            '|(unsubscribe|one_?time|impersonation)_?link$)'
        or name collate "C" like '%url%' and name collate "C" ~
            '(?:(magic|reset|invite|invitation|activation|confirmation|verification|login)_?url$'
            '|(signed|sas|one_?time|impersonation)_?url$)'
        or name collate "C" like '%uri%' and name collate "C" ~
            '(?:(signed|sas|one_?time|impersonation|magic|reset|invite)_?uri$)'
        or name collate "C" like '%conn%' and name collate "C" ~
            '(?:(^|_)(connection|conn)_?(string|str)$)')
    and name collate "C" !~
        '(?:_(at|on|by|type|types|kind|count|counts|counter|total|algorithm|algo|alg|method|mode)'
        '$'
        '|_?(enabled|disabled|verified|required|expires?|expired|expiry|limit|key_?id)$'
        '|_(expires?|expiry|expiration)_?(at|on|in|date|time|days|hours|minutes|seconds|interval)'
        '?$'
        '|_(ttl|lifetime|duration|length|size|strength|policy|policies|rules?|version|status|stat'
        'e)$'
        '|_(min|max)(imum)?_[a-z]+$'
        '|_(name|names|label|title|description|prefix|suffix|preview|masked|last_?four|last_?4)$'
        '|_(scope|scopes|permissions?|issuer|audience|provider|strategy|format|usage|used|changed'
        ')$'
        '|_(date|time|days|hours|minutes|seconds|age|index|position|order|field|column|path|file_'
        '?name)$'
        '|(token|client|jwks?|authori[sz]ation|access_token|refresh_token)_(url|uri|endpoint|host'
        '|server)$'
        '|_(configured|present|changes|attempts|attempt|failures|resets|rotation|reset_sent|sent)'
        '$'
        '|(token|secret|password|hash|cipher|otp|totp|key|code)_(id|ids|uuid|guid|ref|arn)$'
        '|^(is|has|can|should|must|requires?|allows?|needs|enable|disable|force|max|min|num|skip)'
        '_'
        '|_(is|has|requires?|allows?)_(set|required|valid|enabled|changed)$'
        '|(^|_)(total|input|output|prompt|completion|cached?|used|remaining|reasoning|context|dai'
        'ly|monthly)_tokens$'
        '|(^|_)tokens_(used|total|in|out|limit|remaining|per_[a-z]+|left|count|input|output)$'
        '|token(i[sz]er?|i[sz]ed|i[sz]ation)'
        '|secretar'
        '|passwordless'
        '|cipher_?suites?$'
        '|hash_?(tag|map|rate|table|ring|function|key_schema)'
        '|(^|_)(commit|git|content|file|blob|block|tree|image|schema|body|config|build|asset|medi'
        'a)_?hash(es)?$'
        '|(^|_)(avatar|url|geo|tx|transaction|perceptual|row|query|document|migration|definition|'
        'p)_?hash(es)?$'
        '|^(country|currency|language|postal|zip|status|error|exit|area)_code$)';
comment on function audit.says_secret(text) is
    'Whether a name in its normal form is one of a secret';

-- The first look takes no normal form, and is all that most names cost.
create or replace function audit.is_secret(column_name text) returns boolean
language sql immutable parallel safe
return case when column_name collate "C" ~* audit.secret_words()
    then audit.says_secret(audit.normal_name(column_name)) else false end;
comment on function audit.is_secret(text) is
    'Whether values of a column of this name are redacted by default';

create or replace function audit.says_harmless(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~
    '(?:(^|_)(id|ids|uuid|guid|oid|pk|kid|aaguid|slug|index|idx|position|order|rank|sort)$'
    '|[a-z](id|uuid|guid)$'
    '|(^|_)(type|types|kind|name|label|title|description|note|notes|comment|comments|remarks?)$'
    '|[a-z](type|name|label|title|status)$'
    '|(^|_)(status|state|category|purpose|reason|usage|provider|providers|issuer|audience|source)'
    '$'
    '|(^|_)(algorithm|algo|alg|method|format|version|locale|language|timezone|encoding|curve)$'
    '|(^|_)(email|e_?mail|username|user|owner|creator|author|member|phone|phone_number)$'
    '|(^|_)(account|organi[sz]ation|org|team|tenant|project|workspace|company|customer|group)$'
    '|(^|_)(scope|scopes|role|roles|permission|permissions|abilities|ability|grants|privileges)$'
    '|(^|_)(prefix|suffix|start|last_?four|last_?4|last_?chars|preview|masked|hint|fingerprint)$'
    '|(^|_)(ip|ips|ip_?address|ip_?addresses|user_?agent|device|browser|os|platform|country|city)'
    '$'
    '|(^|_)(region|environment|env|domain|domains|host|origin|origins|transports?|public_?key)$'
    '|(^|_)(at|on|by|date|time|since|until)$'
    '|(created|updated|modified|deleted|revoked|expires?|expired|used|seen|verified)(at|on|by)$'
    '|(^|_)(created|updated|modified|deleted|revoked|expires?|expired|expiry|expiration|added)$'
    '|(^|_)(enabled|disabled|active|inactive|verified|confirmed|locked|primary|default|archived)$'
    '|(^|_)(valid|used|backed_up|discoverable|count|counter|attempts|failures|limit|quota|remaini'
    'ng)$'
    '|(^|_)(alias|redirect_ur[il]s?|callback_ur[il]s?|scopes_supported|grant_types?|response_type'
    's?)$'
    '|^(is|has|can|allow|allows|require|requires|rate_limit|max|min)_'
    '|^(accept|accept_[a-z]+|cache_control|content_[a-z]+|date|if_[a-z_]+|last_modified|pragma)$'
    '|^(range|retry_after|transfer_encoding|upgrade|vary|x_request_id|x_correlation_id)$'
    '|^(x_forwarded_(for|host|proto)|traceparent)$)';
comment on function audit.says_harmless(text) is
    'Whether a column of a table of credentials, by its name in normal form, may be shown';

create or replace function audit.says_store(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~
    '(?:(^|_)(credentials?|secrets?|passwords?|passwds?|passkeys?|vaults?|cookies?|pats?)$'
    '|(^|_)(api|access|refresh|auth|bearer|personal_access|service|service_account|bot|id)_?(keys'
    '?|tokens?)$'
    '|(^|_)(signing|encryption|ssh|private|deploy|secret|license|gpg|pgp|jw)_?keys?$'
    '|(^|_)(tokens?|jwks|jwts?|authtokens?|apikeys?|apitokens?|keyrings?|keystores?)$'
    '|(^|_)(totp|hotp|webauthn|u2f|fido2?|otp)(_|$)'
    '|(^|_)(mfa|tfa|two_?factor|2fa|second_?factor)s?(_(methods?|factors?|devices?|secrets?|authe'
    'nticators?|codes?|auths?))?$'
    '|(^|_)authenticators?$'
    '|(^|_)(backup|recovery|scratch|verification|authori[sz]ation|device|one_?time|auth|reset|log'
    'in)_?codes?$'
    '|(^|_)(oauth|oauth2|oidc)_?[a-z_]*(codes?|grants?|tokens?|sessions?|requests?|states?|client'
    's?|apps?|applications?)$'
    '|(^|_)(auth|authori[sz]ation|access)_?grants?$'
    '|(^|_)(password|email|account)_?(resets?|verifications?|confirmations?)(_(tokens?|requests?|'
    'codes?))?$'
    '|(^|_)(magic_?links?|verification_?(tokens?|requests?)|one_?time_?(tokens?|passwords?))$'
    '|(^|_)(sso|saml|ldap|smtp|imap|scim)_?[a-z_]*(connections?|configs?|configurations?|provider'
    's?|settings?|servers?|accounts?|integrations?)$'
    '|(^|_)basic_?auths?$)';
comment on function audit.says_store(text) is
    'Whether a table, by its name in normal form, holds credentials';

create or replace function audit.says_store_with_a_secret(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~
    '(?:(^|_)(sessions?|grants?|verifications?|identities|identity|linked_?accounts?|social_?acco'
    'unts?)$'
    '|(^|_)(user_?)?accounts?_?(connections?|links?)$'
    '|(^|_)oauth_?accounts?$'
    '|(^|_)(keys?|factors?|identity_?providers?)$)';
comment on function audit.says_store_with_a_secret(text) is
    'Whether a table, by its name in normal form, holds credentials if a column is a secret';

create or replace function audit.says_connector(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~
    '(?:(^|_)(integrations?|webhooks?|hooks?|connectors?|connections?|data_?sources?)(_|$)'
    '|(^|_)(plugins?|addons?|destinations?|sinks?|identity_?providers?|mail_?servers?)$)';
comment on function audit.says_connector(text) is
    'Whether a table, by its name in normal form, holds what the application connects to';

create or replace function audit.says_settings(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~
    '(?:(^|_)(settings?|config|configs|configuration|configurations|options?|params?|parameters?)'
    '$'
    '|(^|_)(auth|authentication|connection|connection_info|extra|extras|properties|attributes)$)';
comment on function audit.says_settings(text) is
    'Whether a column of a connector, by its name in normal form, may hold credentials';

create or replace function audit.says_headers(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~
    '(?:(^|_)(http_?|request_?|custom_?|extra_?|default_?|auth_?)?headers?$)';
comment on function audit.says_headers(text) is
    'Whether a name in its normal form is one of headers of HTTP';

create or replace function audit.says_parameter(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~
    '(?:(^|_)(key|sig|signature|code|sid|auth|ticket|otp|pass|state|nonce|jwt|sas|hmac|hdnea)$'
    '|(access|api|id|refresh)_?(key|token))';
comment on function audit.says_parameter(text) is
    'Whether a parameter of an address, by its name in normal form, is a secret there';
