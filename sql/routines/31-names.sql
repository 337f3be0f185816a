-- Names: what the name of a column, of a key in a document or of a table says about secrets.
-- Made from auditdb/vocabulary.toml by `make reference`: change that file, not this one.
--
-- The bodies are parsed when they are created: nothing is looked up when they run, so that no
-- search_path has to be pinned, which would keep the planner from inlining them.

create or replace function audit.secret_stems() returns text
language sql immutable parallel safe
return '(passw'
    '|passphrase'
    '|pass[^a-z0-9]*(code|phrase|key[^a-z0-9]*secret)'
    '|(pass|pwd|pswd?)([^a-z0-9]*(hash|digest|enc|salt|new|old|confirm(ation)?))?([^a-z0-9]|$)'
    '|(db|database|auth|smtp|imap|pop3?|ftp|sftp|ldap|bind|user|admin|root|mail|proxy)(pass|pwd)('
    '[^a-z0-9]|$)'
    '|secret'
    '|token'
    '|hash(ed|es)?'
    '|hashed'
    '|salt(s|ed)?([^a-z0-9]|$)'
    '|(password|hash|crypt|user|auth)salt([^a-z0-9]|$)'
    '|encrypted'
    '|(encrypt|encryption|enc)[^a-z0-9]*(key|iv|data|value|blob|payload)'
    '|cipher'
    '|credential'
    '|mnemonic'
    '|(seed|recovery|backup|wallet)[^a-z0-9]*(phrase|words?|key|kit|seed)s?([^a-z0-9]|$)'
    '|(seed|otp[^a-z0-9]*seed|totp[^a-z0-9]*seed)s?([^a-z0-9]|$)'
    '|totp'
    '|(h?otp|otps)'
    '|otp[a-z]*(secret|seed|code|backup)'
    '|pin([^a-z0-9]*(code|hash|number|block))?s?([^a-z0-9]|$)'
    '|(cvv2?|cvc2?|card[^a-z0-9]*verification[^a-z0-9]*(value|code))([^a-z0-9]|$)'
    '|ssn([^a-z0-9]|$)'
    '|(pem|p12|pfx|pkcs8|pkcs12|keystore|keytab|jks|psk|kek|dek|htpasswd|netrc)s?([^a-z0-9]|$)'
    '|(jwt|jwe|jws|jwk)s?([^a-z0-9]|$)'
    '|pats?([^a-z0-9]|$)'
    '|bearer([^a-z0-9]|$)'
    '|(proxy[^a-z0-9]*)?authori[sz]ation([^a-z0-9]*(header|value|code))?([^a-z0-9]|$)'
    '|(x|http|basic|proxy|digest)[^a-z0-9]*auth(entication)?([^a-z0-9]*(header|value|info|data))?'
    '([^a-z0-9]|$)'
    '|(set[^a-z0-9]*)?cookies?([^a-z0-9]*(id|value|jar|string|header|data))?([^a-z0-9]|$)'
    '|(csrf|xsrf)'
    '|(sess|session)[^a-z0-9]*(key|data|cookie)s?([^a-z0-9]|$)'
    '|(j|php|asp|connect\.)?(sessid|sessionid)([^a-z0-9]|$)'
    '|(code|pkce|srp|oauth|password)[^a-z0-9]*verifier([^a-z0-9]|$)'
    '|client[^a-z0-9]*assertion([^a-z0-9]|$)'
    '|saml[^a-z0-9]*(response|assertion)([^a-z0-9]|$)'
    '|private[^a-z0-9]*(key|pem|jwk|exponent|part|bytes|cert|pgp)'
    '|(api|access|signing|signature|secret|account|shared|master|encryption|decryption|encrypt)[^'
    'a-z0-9]*keys?'
    '|(ssh|rsa|dsa|ecdsa|ed25519|ssl|tls|pgp|gpg|hmac|aes|des|ecc|x25519|wg|wireguard)[^a-z0-9]*k'
    'eys?([^a-z0-9]|$)'
    '|(auth|authentication|authorization|license|licence|recovery|webhook|integration|deploy)[^a-'
    'z0-9]*keys?([^a-z0-9]|$)'
    '|(diversification|consumer|server|root|symmetric|wrapped|wrapping|stream|ingest|ingestion)[^'
    'a-z0-9]*keys?([^a-z0-9]|$)'
    '|(bearer|seed|pre[^a-z0-9]*shared|subscription|instrumentation|connection|functions?|host)[^'
    'a-z0-9]*keys?([^a-z0-9]|$)'
    '|(service[^a-z0-9]*role|service[^a-z0-9]*account|write|admin|activation|unlock|login|pairing'
    '|device|network|app)[^a-z0-9]*keys?([^a-z0-9]|$)'
    '|(tfa|mfa|two[^a-z0-9]*factor|2fa|otp|totp|derived|raw|plain|full|clear|enc|data[^a-z0-9]*en'
    'cryption)[^a-z0-9]*keys?([^a-z0-9]|$)'
    '|key[^a-z0-9]*(material|secret|pem|data|value|bytes|pair|json|content)([^a-z0-9]|$)'
    '|(backup|recovery|scratch|emergency|verification|verify|confirmation|activation)[^a-z0-9]*co'
    'des?([^a-z0-9]|$)'
    '|(reset|login|signin|signup|security|pairing|otp|totp|mfa|tfa|2fa|sms|auth|access)[^a-z0-9]*'
    'codes?([^a-z0-9]|$)'
    '|(invite|invitation|device|user|unlock|one[^a-z0-9]*time|magic|registration|claim|redeem|joi'
    'n)[^a-z0-9]*codes?([^a-z0-9]|$)'
    '|(two[^a-z0-9]*factor|authori[sz]ation|oauth|grant|rescue|challenge|temporary|temp)[^a-z0-9]'
    '*codes?([^a-z0-9]|$)'
    '|(magic|reset|invite|invitation|activation|confirmation|verification|login|unsubscribe)[^a-z'
    '0-9]*(link|url)([^a-z0-9]|$)'
    '|(pre[^a-z0-9]*signed|signed|sas|one[^a-z0-9]*time|impersonation)[^a-z0-9]*(link|url|uri)([^'
    'a-z0-9]|$)'
    '|(connection|conn)[^a-z0-9]*(string|str)([^a-z0-9]|$)'
    '|(database|db|redis|amqp|broker|mongo(db)?|postgres(ql)?|mysql)[^a-z0-9]*dsn([^a-z0-9]|$))';
comment on function audit.secret_stems() is
    'Pattern, whatever the case, of which each name of a secret has a part';

create or replace function audit.secret_names() returns text
language sql immutable parallel safe
return '(passw'
    '|passphrase'
    '|pass[_-]?(?:code|phrase|key[_-]?secret)'
    '|(?:pass|pwd|pswd?)(?:[_-]?(?:hash|digest|enc|salt|new|old|confirm(?:ation)?))?'
    '|(?:db|database|auth|smtp|imap|pop3?|ftp|sftp|ldap|bind|user|admin|root|mail|proxy)(?:pass|p'
    'wd)'
    '|secret'
    '|token'
    '|hash(?:ed|es)?'
    '|hashed'
    '|salt(?:s|ed)?'
    '|(?:password|hash|crypt|user|auth)salt'
    '|encrypted'
    '|(?:encrypt|encryption|enc)[_-]?(?:key|iv|data|value|blob|payload)'
    '|cipher'
    '|credential'
    '|mnemonic'
    '|(?:seed|recovery|backup|wallet)[_-]?(?:phrase|words?|key|kit|seed)s?'
    '|(?:seed|otp[_-]?seed|totp[_-]?seed)s?'
    '|totp'
    '|(?:h?otp|otps)'
    '|otp[a-z]*(?:secret|seed|code|backup)'
    '|pin(?:[_-]?(?:code|hash|number|block))?s?'
    '|(?:cvv2?|cvc2?|card[_-]?verification[_-]?(?:value|code))'
    '|ssn'
    '|(?:pem|p12|pfx|pkcs8|pkcs12|keystore|keytab|jks|psk|kek|dek|htpasswd|netrc)s?'
    '|(?:jwt|jwe|jws|jwk)s?'
    '|pats?'
    '|bearer'
    '|(?:proxy[_-]?)?authori[sz]ation(?:[_-]?(?:header|value|code))?'
    '|(?:x|http|basic|proxy|digest)[_-]?auth(?:entication)?(?:[_-]?(?:header|value|info|data))?'
    '|(?:set[_-]?)?cookies?(?:[_-]?(?:id|value|jar|string|header|data))?'
    '|(?:csrf|xsrf)'
    '|(?:sess|session)[_-]?(?:key|data|cookie)s?'
    '|(?:j|php|asp|connect\.)?(?:sessid|sessionid)'
    '|(?:code|pkce|srp|oauth|password)[_-]?verifier'
    '|client[_-]?assertion'
    '|saml[_-]?(?:response|assertion)'
    '|private[_-]?(?:key|pem|jwk|exponent|part|bytes|cert|pgp)'
    '|(?:api|access|signing|signature|secret|account|shared|master|encryption|decryption|encrypt)'
    '[_-]?keys?'
    '|(?:ssh|rsa|dsa|ecdsa|ed25519|ssl|tls|pgp|gpg|hmac|aes|des|ecc|x25519|wg|wireguard)[_-]?keys'
    '?'
    '|(?:auth|authentication|authorization|license|licence|recovery|webhook|integration|deploy)[_'
    '-]?keys?'
    '|(?:diversification|consumer|server|root|symmetric|wrapped|wrapping|stream|ingest|ingestion)'
    '[_-]?keys?'
    '|(?:bearer|seed|pre[_-]?shared|subscription|instrumentation|connection|functions?|host)[_-]?'
    'keys?'
    '|(?:service[_-]?role|service[_-]?account|write|admin|activation|unlock|login|pairing|device|'
    'network|app)[_-]?keys?'
    '|(?:tfa|mfa|two[_-]?factor|2fa|otp|totp|derived|raw|plain|full|clear|enc|data[_-]?encryption'
    ')[_-]?keys?'
    '|key[_-]?(?:material|secret|pem|data|value|bytes|pair|json|content)'
    '|(?:backup|recovery|scratch|emergency|verification|verify|confirmation|activation)[_-]?codes'
    '?'
    '|(?:reset|login|signin|signup|security|pairing|otp|totp|mfa|tfa|2fa|sms|auth|access)[_-]?cod'
    'es?'
    '|(?:invite|invitation|device|user|unlock|one[_-]?time|magic|registration|claim|redeem|join)['
    '_-]?codes?'
    '|(?:two[_-]?factor|authori[sz]ation|oauth|grant|rescue|challenge|temporary|temp)[_-]?codes?'
    '|(?:magic|reset|invite|invitation|activation|confirmation|verification|login|unsubscribe)[_-'
    ']?(?:link|url)'
    '|(?:pre[_-]?signed|signed|sas|one[_-]?time|impersonation)[_-]?(?:link|url|uri)'
    '|(?:connection|conn)[_-]?(?:string|str)'
    '|(?:database|db|redis|amqp|broker|mongo(?:db)?|postgres(?:ql)?|mysql)[_-]?dsn)';
comment on function audit.secret_names() is
    'Pattern, whatever the case, for the part of a name in a text that makes it a secret';

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
return name collate "C" ~ '(passw'
    '|passphrase'
    '|pass_?(code|phrase|key_secret)'
    '|(^|_)(pass|pwd|pswd?)(_?(hash|digest|enc|salt|new|old|confirm(ation)?))?$'
    '|(db|database|auth|smtp|imap|pop3?|ftp|sftp|ldap|bind|user|admin|root|mail|proxy)(pass|pwd)$'
    '|secret'
    '|token'
    '|hash(ed|es)?(_|$)'
    '|(^|_)hashed'
    '|(^|_)salt(s|ed)?$'
    '|(password|hash|crypt|user|auth)salt$'
    '|encrypted'
    '|(^|_)(encrypt|encryption|enc)_(key|iv|data|value|blob|payload)'
    '|cipher'
    '|credential'
    '|mnemonic'
    '|(seed|recovery|backup|wallet)_?(phrase|words?|key|kit|seed)s?$'
    '|(^|_)(seed|otp_?seed|totp_?seed)s?$'
    '|totp'
    '|(^|_)(h?otp|otps)(_|$)'
    '|(^|_)otp[a-z]*(secret|seed|code|backup)'
    '|(^|_)pin(_?(code|hash|number|block))?s?$'
    '|(^|_)(cvv2?|cvc2?|card_verification_(value|code))$'
    '|(^|_)ssn$'
    '|(^|_)(pem|p12|pfx|pkcs8|pkcs12|keystore|keytab|jks|psk|kek|dek|htpasswd|netrc)s?$'
    '|(^|_)(jwt|jwe|jws|jwk)s?$'
    '|(^|_)pats?$'
    '|(^|_)bearer$'
    '|(^|_)(proxy_)?authori[sz]ation(_(header|value|code))?$'
    '|(^|_)(x|http|basic|proxy|digest)_auth(entication)?(_(header|value|info|data))?$'
    '|(^|_)(set_)?cookies?(_(id|value|jar|string|header|data))?$'
    '|(^|_)(csrf|xsrf)(_|$)'
    '|(^|_)(sess|session)_?(key|data|cookie)s?$'
    '|(^|_)(j|php|asp|connect\.)?(sessid|sessionid)$'
    '|(code|pkce|srp|oauth|password)_?verifier$'
    '|(^|_)client_?assertion$'
    '|(^|_)saml_?(response|assertion)$'
    '|private_?(key|pem|jwk|exponent|part|bytes|cert|pgp)'
    '|(api|access|signing|signature|secret|account|shared|master|encryption|decryption|encrypt)_?'
    'keys?(_|$)'
    '|(ssh|rsa|dsa|ecdsa|ed25519|ssl|tls|pgp|gpg|hmac|aes|des|ecc|x25519|wg|wireguard)_?keys?$'
    '|(auth|authentication|authorization|license|licence|recovery|webhook|integration|deploy)_?ke'
    'ys?$'
    '|(diversification|consumer|server|root|symmetric|wrapped|wrapping|stream|ingest|ingestion)_?'
    'keys?$'
    '|(bearer|seed|pre_?shared|subscription|instrumentation|connection|functions?|host)_?keys?$'
    '|(service_role|service_account|write|admin|activation|unlock|login|pairing|device|network|ap'
    'p)_?keys?$'
    '|(tfa|mfa|two_?factor|2fa|otp|totp|derived|raw|plain|full|clear|enc|data_encryption)_?keys?$'
    '|key_?(material|secret|pem|data|value|bytes|pair|json|content)$'
    '|(backup|recovery|scratch|emergency|verification|verify|confirmation|activation)_?codes?$'
    '|(reset|login|signin|signup|security|pairing|otp|totp|mfa|tfa|2fa|sms|auth|access)_?codes?$'
    '|(invite|invitation|device|user|unlock|one_?time|magic|registration|claim|redeem|join)_?code'
    's?$'
    '|(two_?factor|authori[sz]ation|oauth|grant|rescue|challenge|temporary|temp)_?codes?$'
    '|(magic|reset|invite|invitation|activation|confirmation|verification|login|unsubscribe)_?(li'
    'nk|url)$'
    '|(pre_?signed|signed|sas|one_?time|impersonation)_?(link|url|uri)$'
    '|(^|_)(connection|conn)_?(string|str)$'
    '|(^|_)(database|db|redis|amqp|broker|mongo(db)?|postgres(ql)?|mysql)_dsn$)'
    and name collate "C" !~ '(_(at|on|by|type|types|kind|count|counts|counter|total|algorithm|algo|alg|method|mode)$'
    '|_?(enabled|disabled|verified|required|expires?|expired|expiry|limit|key_?id)$'
    '|_(expires?|expiry|expiration)_?(at|on|in|date|time|days|hours|minutes|seconds|interval)?$'
    '|_(ttl|lifetime|duration|length|size|strength|policy|policies|rules?|version|status|state)$'
    '|_(min|max)(imum)?_[a-z]+$'
    '|_(name|names|label|title|description|prefix|suffix|preview|masked|last_?four|last_?4)$'
    '|_(scope|scopes|permissions?|issuer|audience|provider|strategy|format|usage|used|changed)$'
    '|_(date|time|days|hours|minutes|seconds|age|index|position|order|field|column|path|file_?nam'
    'e)$'
    '|(token|client|jwks?|authori[sz]ation|access_token|refresh_token)_(url|uri|endpoint|host|ser'
    'ver)$'
    '|_(configured|present|changes|attempts|attempt|failures|resets|rotation|reset_sent|sent)$'
    '|(token|secret|password|hash|cipher|otp|totp|key|code)_(id|ids|uuid|guid|ref|arn)$'
    '|^(is|has|can|should|must|requires?|allows?|needs|enable|disable|force|max|min|num|skip)_'
    '|_(is|has|requires?|allows?)_(set|required|valid|enabled|changed)$'
    '|(^|_)(total|input|output|prompt|completion|cached?|used|remaining|reasoning|context|daily|m'
    'onthly)_tokens$'
    '|(^|_)tokens_(used|total|in|out|limit|remaining|per_[a-z]+|left|count|input|output)$'
    '|token(i[sz]er?|i[sz]ed|i[sz]ation)'
    '|secretar'
    '|passwordless'
    '|cipher_?suites?$'
    '|hash_?(tag|map|rate|table|ring|function|key_schema)'
    '|(^|_)(commit|git|content|file|blob|block|tree|image|schema|body|config|build|asset|media)_?'
    'hash(es)?$'
    '|(^|_)(avatar|url|geo|tx|transaction|perceptual|row|query|document|migration|definition|p)_?'
    'hash(es)?$'
    '|^(country|currency|language|postal|zip|status|error|exit|area)_code$)';
comment on function audit.says_secret(text) is
    'Whether a name in its normal form is one of a secret';

-- The first look takes no normal form, and is all that most names cost.
create or replace function audit.is_secret(column_name text) returns boolean
language sql immutable parallel safe
return case when column_name collate "C" ~* audit.secret_stems()
    then audit.says_secret(audit.normal_name(column_name)) else false end;
comment on function audit.is_secret(text) is
    'Whether values of a column of this name are redacted by default';

create or replace function audit.says_harmless(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~ '((^|_)(id|ids|uuid|guid|oid|pk|kid|aaguid|slug|index|idx|position|order|rank|sort)$'
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
    '|^(is|has|can|allow|allows|require|requires|rate_limit|max|min)_'
    '|^(accept|accept_[a-z]+|cache_control|content_[a-z]+|date|if_[a-z_]+|last_modified|pragma)$'
    '|^(range|retry_after|transfer_encoding|upgrade|vary|x_request_id|x_correlation_id)$'
    '|^(x_forwarded_(for|host|proto)|traceparent)$)';
comment on function audit.says_harmless(text) is
    'Whether a column of a table of credentials, by its name in normal form, may be shown';

create or replace function audit.says_store(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~ '((^|_)(credentials?|secrets?|passwords?|passwds?|passkeys?|vaults?|cookies?|pats?)$'
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
return name collate "C" ~ '((^|_)(sessions?|grants?|verifications?|identities|identity|linked_?accounts?|social_?accoun'
    'ts?)$'
    '|(^|_)(user_?)?accounts?_?(connections?|links?)$'
    '|(^|_)oauth_?accounts?$'
    '|(^|_)(keys?|factors?|identity_?providers?)$)';
comment on function audit.says_store_with_a_secret(text) is
    'Whether a table, by its name in normal form, holds credentials if a column is a secret';

create or replace function audit.says_connector(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~ '((^|_)(integrations?|webhooks?|hooks?|connectors?|connections?|data_?sources?)(_|$)'
    '|(^|_)(plugins?|addons?|destinations?|sinks?|identity_?providers?|mail_?servers?)$)';
comment on function audit.says_connector(text) is
    'Whether a table, by its name in normal form, holds what the application connects to';

create or replace function audit.says_settings(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~ '((^|_)(settings?|config|configs|configuration|configurations|options?|params?|parameters?)$'
    '|(^|_)(auth|authentication|connection|connection_info|extra|extras|properties|attributes)$)';
comment on function audit.says_settings(text) is
    'Whether a column of a connector, by its name in normal form, may hold credentials';

create or replace function audit.says_headers(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~ '((^|_)(http_?|request_?|custom_?|extra_?|default_?|auth_?)?headers?$)';
comment on function audit.says_headers(text) is
    'Whether a name in its normal form is one of headers of HTTP';

create or replace function audit.says_parameter(name text) returns boolean
language sql immutable parallel safe
return name collate "C" ~ '((^|_)(key|sig|signature|code|sid|auth|ticket|otp|pass|state|nonce|jwt|sas|hmac|hdnea)$'
    '|(access|api|id|refresh)_?(key|token))';
comment on function audit.says_parameter(text) is
    'Whether a parameter of an address, by its name in normal form, is a secret there';
