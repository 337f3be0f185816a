-- Names: what the name of a column, of a key in a document or of a table says about secrets.
-- Made from auditdb/mapping/vocabulary.toml by `make reference`: change that file, not this one.
--
-- In PL/pgSQL, which plans an expression once: inlined into others they cost more to plan than to
-- evaluate.

create or replace function audit_private.secret_words() returns text
language sql immutable parallel safe
return 'passw|passphrase|pass|pwd|pswd|secret|token|hash|salt|encrypt|cipher|credential|mnemonic'
    '|phrase|recovery|seed|otp|pin|cvv|cvc|ssn|pem|p12|pfx|pkcs|keystore|keytab|psk|htpasswd|'
    'jwt|jwk|pat|bearer|auth|cookie|srf|sess|verif|assert|saml|private|key|code|link|url|uri|'
    'conn';
comment on function audit_private.secret_words() is
    'Pattern, whatever the case, of which each name of a secret has a part';

create or replace function audit_private.normal_name(name text) returns text
language sql immutable parallel safe
return translate('-' || lower(case when name = lower(name collate "C") then name else
    regexp_replace(
        regexp_replace(name collate "C", '([a-z0-9])([A-Z])', '\1-\2', 'g'),
        '([A-Z])([A-Z][a-z])', '\1-\2', 'g') end collate "C") || '-',
    ' _./:$@#+[]~', '------------');
comment on function audit_private.normal_name(text) is
    'A name in lower case with its words apart by "-", and between two of these: clientSecret '
    'becomes -client-secret-';

create or replace function audit_private.is_secret(column_name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    name text collate "C";
begin
    -- Most names have none of the words, and are no more trouble.
    if column_name collate "C" !~* audit_private.secret_words() then
        return false;
    end if;
    name := audit_private.normal_name(column_name);
    return (name like '%passw%'
        or name like '%passphrase%'
        or name like '%pass%' and name like any (array[
            '%passcode%', '%passphrase%', '%password%', '%passkey-secret%', '%pass-code%',
            '%pass-phrase%', '%pass-word%', '%pass-key-secret%', '%-pass-', '%-passhash-',
            '%-passdigest-', '%-passenc-', '%-passsalt-', '%-passnew-', '%-passold-',
            '%-passconfirm-', '%-passconfirmation-', '%-pass-hash-', '%-pass-digest-',
            '%-pass-enc-', '%-pass-salt-', '%-pass-new-', '%-pass-old-', '%-pass-confirm-',
            '%-pass-confirmation-', '%dbpass-', '%databasepass-', '%authpass-', '%smtppass-',
            '%imappass-', '%poppass-', '%pop3pass-', '%ftppass-', '%ldappass-', '%bindpass-',
            '%userpass-', '%adminpass-', '%rootpass-', '%mailpass-', '%proxypass-'])
        or name like '%pwd%' and name like any (array[
            '%pwd-', '%pwdhash-', '%pwddigest-', '%pwdenc-', '%pwdsalt-', '%pwdnew-', '%pwdold-',
            '%pwdconfirm-', '%pwdconfirmation-', '%pwd-hash-', '%pwd-digest-', '%pwd-enc-',
            '%pwd-salt-', '%pwd-new-', '%pwd-old-', '%pwd-confirm-', '%pwd-confirmation-'])
        or name like '%pswd%' and name like '%-pswd-'
        or name like '%secret%'
        or name like '%token%'
        or name like '%hash%' and name like any (array[
            '%hash-%', '%hashed-%', '%hashes-%', '%-hashed%'])
        or name like '%salt%' and name like any (array[
            '%-salt-', '%-salts-', '%-salted-', '%passwordsalt-', '%hashsalt-', '%cryptsalt-',
            '%usersalt-', '%authsalt-'])
        or name like '%encrypt%' and name like any (array[
            '%encrypted%', '%-encrypt-iv%', '%-encrypt-data%', '%-encrypt-value%',
            '%-encrypt-blob%', '%-encrypt-payload%', '%-encryption-iv%', '%-encryption-data%',
            '%-encryption-value%', '%-encryption-blob%', '%-encryption-payload%'])
        or name like '%cipher%'
        or name like '%credential%'
        or name like '%mnemonic%'
        or name like '%phrase%' and name like any (array[
            '%seedphrase-', '%seedphrases-', '%seed-phrase-', '%seed-phrases-',
            '%recoveryphrase-', '%recoveryphrases-', '%recovery-phrase-', '%recovery-phrases-',
            '%backupphrase-', '%backupphrases-', '%backup-phrase-', '%backup-phrases-',
            '%walletphrase-', '%walletphrases-', '%wallet-phrase-', '%wallet-phrases-'])
        or name like '%recovery%' and name like any (array[
            '%recoveryword-', '%recoverywords-', '%recoverywordss-', '%recoverykey-',
            '%recoverykeys-', '%recoverykit-', '%recoverykits-', '%recoveryseed-',
            '%recoveryseeds-', '%recovery-word-', '%recovery-words-', '%recovery-wordss-',
            '%recovery-key-', '%recovery-keys-', '%recovery-kit-', '%recovery-kits-',
            '%recovery-seed-', '%recovery-seeds-'])
        or name like '%seed%' and name like any (array[
            '%-seed-', '%-seeds-', '%-otpseed-', '%-otpseeds-', '%-totpseed-', '%-totpseeds-'])
        or name like '%otp%' and name like any (array[
            '%totp%', '%-otp-%', '%-hotp-%', '%-otps-%', '%-otp%secret%', '%-otp%seed%',
            '%-otp%code%', '%-otp%backup%'])
        or name like '%pin%' and name like any (array[
            '%-pin-', '%-pins-', '%-pincode-', '%-pincodes-', '%-pinhash-', '%-pinhashs-',
            '%-pinnumber-', '%-pinnumbers-', '%-pinblock-', '%-pinblocks-', '%-pin-code-',
            '%-pin-codes-', '%-pin-hash-', '%-pin-hashs-', '%-pin-number-', '%-pin-numbers-',
            '%-pin-block-', '%-pin-blocks-'])
        or name like '%cvv%' and name like any (array[
            '%-cvv-', '%-cvv2-'])
        or name like '%cvc%' and name like any (array[
            '%-cvc-', '%-cvc2-'])
        or name like '%ssn%' and name like '%-ssn-'
        or name like '%pem%' and name like '%-pem-'
        or name like '%p12%' and name like '%-p12-'
        or name like '%pfx%' and name like '%-pfx-'
        or name like '%pkcs%' and name like any (array[
            '%-pkcs8-', '%-pkcs12-', '%-pkcs-8-', '%-pkcs-12-'])
        or name like '%keystore%'
        or name like '%keytab%'
        or name like '%psk%' and name like '%-psk-'
        or name like '%htpasswd%'
        or name like '%jwt%' and name like any (array[
            '%-jwt-', '%-jwts-'])
        or name like '%jwk%' and name like '%-jwk-'
        or name like '%pat%' and name like any (array[
            '%-pat-', '%-pats-'])
        or name like '%bearer%' and name like '%-bearer-'
        or name like '%auth%' and name like any (array[
            '%-authorisation-', '%-authorisation-header-', '%-authorisation-value-',
            '%-authorisation-code-', '%-authorization-', '%-authorization-header-',
            '%-authorization-value-', '%-authorization-code-', '%-x-auth-', '%-x-auth-header-',
            '%-x-auth-value-', '%-x-auth-info-', '%-x-auth-data-', '%-x-authentication-',
            '%-x-authentication-header-', '%-x-authentication-value-', '%-x-authentication-info-',
            '%-x-authentication-data-', '%-http-auth-', '%-http-auth-header-',
            '%-http-auth-value-', '%-http-auth-info-', '%-http-auth-data-',
            '%-http-authentication-', '%-http-authentication-header-',
            '%-http-authentication-value-', '%-http-authentication-info-',
            '%-http-authentication-data-', '%-basic-auth-', '%-basic-auth-header-',
            '%-basic-auth-value-', '%-basic-auth-info-', '%-basic-auth-data-',
            '%-basic-authentication-', '%-basic-authentication-header-',
            '%-basic-authentication-value-', '%-basic-authentication-info-',
            '%-basic-authentication-data-', '%-proxy-auth-', '%-proxy-auth-header-',
            '%-proxy-auth-value-', '%-proxy-auth-info-', '%-proxy-auth-data-',
            '%-proxy-authentication-', '%-proxy-authentication-header-',
            '%-proxy-authentication-value-', '%-proxy-authentication-info-',
            '%-proxy-authentication-data-', '%-digest-auth-', '%-digest-auth-header-',
            '%-digest-auth-value-', '%-digest-auth-info-', '%-digest-auth-data-',
            '%-digest-authentication-', '%-digest-authentication-header-',
            '%-digest-authentication-value-', '%-digest-authentication-info-',
            '%-digest-authentication-data-'])
        or name like '%cookie%' and name like any (array[
            '%-cookie-', '%-cookie-id-', '%-cookie-value-', '%-cookie-jar-', '%-cookie-string-',
            '%-cookie-header-', '%-cookie-data-', '%-cookies-', '%-cookies-id-',
            '%-cookies-value-', '%-cookies-jar-', '%-cookies-string-', '%-cookies-header-',
            '%-cookies-data-'])
        or name like '%srf%' and name like any (array[
            '%-csrf-%', '%-xsrf-%'])
        or name like '%sess%' and name like any (array[
            '%-sesskey-', '%-sesskeys-', '%-sessdata-', '%-sessdatas-', '%-sesscookie-',
            '%-sesscookies-', '%-sess-key-', '%-sess-keys-', '%-sess-data-', '%-sess-datas-',
            '%-sess-cookie-', '%-sess-cookies-', '%-sessionkey-', '%-sessionkeys-',
            '%-sessiondata-', '%-sessiondatas-', '%-sessioncookie-', '%-sessioncookies-',
            '%-session-key-', '%-session-keys-', '%-session-data-', '%-session-datas-',
            '%-session-cookie-', '%-session-cookies-', '%-jsessid-', '%-jsess-id-', '%-j-sessid-',
            '%-j-sess-id-', '%-jsessionid-', '%-jsession-id-', '%-j-sessionid-',
            '%-j-session-id-', '%-phpsessid-', '%-phpsess-id-', '%-php-sessid-', '%-php-sess-id-',
            '%-phpsessionid-', '%-phpsession-id-', '%-php-sessionid-', '%-php-session-id-',
            '%-aspsessid-', '%-aspsess-id-', '%-asp-sessid-', '%-asp-sess-id-', '%-aspsessionid-',
            '%-aspsession-id-', '%-asp-sessionid-', '%-asp-session-id-'])
        or name like '%verif%' and name like any (array[
            '%codeverifier-', '%code-verifier-', '%pkceverifier-', '%pkce-verifier-',
            '%srpverifier-', '%srp-verifier-', '%oauthverifier-', '%oauth-verifier-',
            '%passwordverifier-', '%password-verifier-', '%-card-verification-value-',
            '%-card-verification-code-'])
        or name like '%assert%' and name like any (array[
            '%-clientassertion-', '%-client-assertion-', '%-samlassertion-', '%-saml-assertion-'])
        or name like '%saml%' and name like any (array[
            '%-samlresponse-', '%-saml-response-'])
        or name like '%private%' and name like any (array[
            '%privatekey%', '%privatepem%', '%privatejwk%', '%privateexponent%', '%privatepart%',
            '%privatebytes%', '%privatecert%', '%privatepgp%', '%private-key%', '%private-pem%',
            '%private-jwk%', '%private-exponent%', '%private-part%', '%private-bytes%',
            '%private-cert%', '%private-pgp%'])
        or name like '%key%' and name like any (array[
            '%apikey-%', '%apikeys-%', '%api-key-%', '%api-keys-%', '%accesskey-%',
            '%accesskeys-%', '%access-key-%', '%access-keys-%', '%signingkey-%', '%signingkeys-%',
            '%signing-key-%', '%signing-keys-%', '%signaturekey-%', '%signaturekeys-%',
            '%signature-key-%', '%signature-keys-%', '%accountkey-%', '%accountkeys-%',
            '%account-key-%', '%account-keys-%', '%sharedkey-%', '%sharedkeys-%', '%shared-key-%',
            '%shared-keys-%', '%masterkey-%', '%masterkeys-%', '%master-key-%', '%master-keys-%',
            '%encryptionkey-%', '%encryptionkeys-%', '%encryption-key-%', '%encryption-keys-%',
            '%decryptionkey-%', '%decryptionkeys-%', '%decryption-key-%', '%decryption-keys-%',
            '%encryptkey-%', '%encryptkeys-%', '%encrypt-key-%', '%encrypt-keys-%', '%sshkey-',
            '%sshkeys-', '%ssh-key-', '%ssh-keys-', '%rsakey-', '%rsakeys-', '%rsa-key-',
            '%rsa-keys-', '%dsakey-', '%dsakeys-', '%dsa-key-', '%dsa-keys-', '%ed25519key-',
            '%ed25519keys-', '%ed25519-key-', '%ed25519-keys-', '%sslkey-', '%sslkeys-',
            '%ssl-key-', '%ssl-keys-', '%tlskey-', '%tlskeys-', '%tls-key-', '%tls-keys-',
            '%pgpkey-', '%pgpkeys-', '%pgp-key-', '%pgp-keys-', '%gpgkey-', '%gpgkeys-',
            '%gpg-key-', '%gpg-keys-', '%hmackey-', '%hmackeys-', '%hmac-key-', '%hmac-keys-',
            '%aeskey-', '%aeskeys-', '%aes-key-', '%aes-keys-', '%deskey-', '%deskeys-',
            '%des-key-', '%des-keys-', '%wireguardkey-', '%wireguardkeys-', '%wireguard-key-',
            '%wireguard-keys-', '%authkey-', '%authkeys-', '%auth-key-', '%auth-keys-',
            '%authenticationkey-', '%authenticationkeys-', '%authentication-key-',
            '%authentication-keys-', '%authorizationkey-', '%authorizationkeys-',
            '%authorization-key-', '%authorization-keys-', '%licensekey-', '%licensekeys-',
            '%license-key-', '%license-keys-', '%licencekey-', '%licencekeys-', '%licence-key-',
            '%licence-keys-', '%webhookkey-', '%webhookkeys-', '%webhook-key-', '%webhook-keys-',
            '%integrationkey-', '%integrationkeys-', '%integration-key-', '%integration-keys-',
            '%deploykey-', '%deploykeys-', '%deploy-key-', '%deploy-keys-',
            '%diversificationkey-', '%diversificationkeys-', '%diversification-key-',
            '%diversification-keys-', '%consumerkey-', '%consumerkeys-', '%consumer-key-',
            '%consumer-keys-', '%serverkey-', '%serverkeys-', '%server-key-', '%server-keys-',
            '%rootkey-', '%rootkeys-', '%root-key-', '%root-keys-', '%symmetrickey-',
            '%symmetrickeys-', '%symmetric-key-', '%symmetric-keys-', '%wrappedkey-',
            '%wrappedkeys-', '%wrapped-key-', '%wrapped-keys-', '%wrappingkey-', '%wrappingkeys-',
            '%wrapping-key-', '%wrapping-keys-', '%streamkey-', '%streamkeys-', '%stream-key-',
            '%stream-keys-', '%ingestkey-', '%ingestkeys-', '%ingest-key-', '%ingest-keys-',
            '%seedkey-', '%seedkeys-', '%seed-key-', '%seed-keys-', '%subscriptionkey-',
            '%subscriptionkeys-', '%subscription-key-', '%subscription-keys-',
            '%instrumentationkey-', '%instrumentationkeys-', '%instrumentation-key-',
            '%instrumentation-keys-', '%connectionkey-', '%connectionkeys-', '%connection-key-',
            '%connection-keys-', '%functionkey-', '%functionkeys-', '%function-key-',
            '%function-keys-', '%functionskey-', '%functionskeys-', '%functions-key-',
            '%functions-keys-', '%hostkey-', '%hostkeys-', '%host-key-', '%host-keys-',
            '%service-rolekey-', '%service-rolekeys-', '%service-role-key-',
            '%service-role-keys-', '%servicekey-', '%servicekeys-', '%service-key-',
            '%service-keys-', '%writekey-', '%writekeys-', '%write-key-', '%write-keys-',
            '%adminkey-', '%adminkeys-', '%admin-key-', '%admin-keys-', '%activationkey-',
            '%activationkeys-', '%activation-key-', '%activation-keys-', '%unlockkey-',
            '%unlockkeys-', '%unlock-key-', '%unlock-keys-', '%loginkey-', '%loginkeys-',
            '%login-key-', '%login-keys-', '%pairingkey-', '%pairingkeys-', '%pairing-key-',
            '%pairing-keys-', '%devicekey-', '%devicekeys-', '%device-key-', '%device-keys-',
            '%networkkey-', '%networkkeys-', '%network-key-', '%network-keys-', '%appkey-',
            '%appkeys-', '%app-key-', '%app-keys-', '%tfakey-', '%tfakeys-', '%tfa-key-',
            '%tfa-keys-', '%mfakey-', '%mfakeys-', '%mfa-key-', '%mfa-keys-', '%twofactorkey-',
            '%twofactorkeys-', '%twofactor-key-', '%twofactor-keys-', '%two-factorkey-',
            '%two-factorkeys-', '%two-factor-key-', '%two-factor-keys-', '%2fakey-', '%2fakeys-',
            '%2fa-key-', '%2fa-keys-', '%derivedkey-', '%derivedkeys-', '%derived-key-',
            '%derived-keys-', '%rawkey-', '%rawkeys-', '%raw-key-', '%raw-keys-', '%plainkey-',
            '%plainkeys-', '%plain-key-', '%plain-keys-', '%fullkey-', '%fullkeys-', '%full-key-',
            '%full-keys-', '%clearkey-', '%clearkeys-', '%clear-key-', '%clear-keys-', '%enckey-',
            '%enckeys-', '%enc-key-', '%enc-keys-', '%datakey-', '%datakeys-', '%data-key-',
            '%data-keys-', '%keymaterial-', '%keypem-', '%keydata-', '%keyvalue-', '%keybytes-',
            '%keypair-', '%keyjson-', '%keycontent-', '%key-material-', '%key-pem-', '%key-data-',
            '%key-value-', '%key-bytes-', '%key-pair-', '%key-json-', '%key-content-'])
        or name like '%code%' and name like any (array[
            '%backupcode-', '%backupcodes-', '%backup-code-', '%backup-codes-', '%recoverycode-',
            '%recoverycodes-', '%recovery-code-', '%recovery-codes-', '%scratchcode-',
            '%scratchcodes-', '%scratch-code-', '%scratch-codes-', '%emergencycode-',
            '%emergencycodes-', '%emergency-code-', '%emergency-codes-', '%verificationcode-',
            '%verificationcodes-', '%verification-code-', '%verification-codes-', '%verifycode-',
            '%verifycodes-', '%verify-code-', '%verify-codes-', '%confirmationcode-',
            '%confirmationcodes-', '%confirmation-code-', '%confirmation-codes-',
            '%activationcode-', '%activationcodes-', '%activation-code-', '%activation-codes-',
            '%resetcode-', '%resetcodes-', '%reset-code-', '%reset-codes-', '%logincode-',
            '%logincodes-', '%login-code-', '%login-codes-', '%signincode-', '%signincodes-',
            '%signin-code-', '%signin-codes-', '%signupcode-', '%signupcodes-', '%signup-code-',
            '%signup-codes-', '%securitycode-', '%securitycodes-', '%security-code-',
            '%security-codes-', '%pairingcode-', '%pairingcodes-', '%pairing-code-',
            '%pairing-codes-', '%mfacode-', '%mfacodes-', '%mfa-code-', '%mfa-codes-',
            '%tfacode-', '%tfacodes-', '%tfa-code-', '%tfa-codes-', '%2facode-', '%2facodes-',
            '%2fa-code-', '%2fa-codes-', '%smscode-', '%smscodes-', '%sms-code-', '%sms-codes-',
            '%authcode-', '%authcodes-', '%auth-code-', '%auth-codes-', '%accesscode-',
            '%accesscodes-', '%access-code-', '%access-codes-', '%invitecode-', '%invitecodes-',
            '%invite-code-', '%invite-codes-', '%invitationcode-', '%invitationcodes-',
            '%invitation-code-', '%invitation-codes-', '%devicecode-', '%devicecodes-',
            '%device-code-', '%device-codes-', '%usercode-', '%usercodes-', '%user-code-',
            '%user-codes-', '%unlockcode-', '%unlockcodes-', '%unlock-code-', '%unlock-codes-',
            '%onetimecode-', '%onetimecodes-', '%onetime-code-', '%onetime-codes-',
            '%one-timecode-', '%one-timecodes-', '%one-time-code-', '%one-time-codes-',
            '%magiccode-', '%magiccodes-', '%magic-code-', '%magic-codes-', '%registrationcode-',
            '%registrationcodes-', '%registration-code-', '%registration-codes-', '%claimcode-',
            '%claimcodes-', '%claim-code-', '%claim-codes-', '%redeemcode-', '%redeemcodes-',
            '%redeem-code-', '%redeem-codes-', '%joincode-', '%joincodes-', '%join-code-',
            '%join-codes-', '%twofactorcode-', '%twofactorcodes-', '%twofactor-code-',
            '%twofactor-codes-', '%two-factorcode-', '%two-factorcodes-', '%two-factor-code-',
            '%two-factor-codes-', '%authorisationcode-', '%authorisationcodes-',
            '%authorisation-code-', '%authorisation-codes-', '%authorizationcode-',
            '%authorizationcodes-', '%authorization-code-', '%authorization-codes-',
            '%grantcode-', '%grantcodes-', '%grant-code-', '%grant-codes-', '%rescuecode-',
            '%rescuecodes-', '%rescue-code-', '%rescue-codes-', '%challengecode-',
            '%challengecodes-', '%challenge-code-', '%challenge-codes-', '%temporarycode-',
            '%temporarycodes-', '%temporary-code-', '%temporary-codes-'])
        or name like '%link%' and name like any (array[
            '%magiclink-', '%magic-link-', '%resetlink-', '%reset-link-', '%invitelink-',
            '%invite-link-', '%invitationlink-', '%invitation-link-', '%activationlink-',
            '%activation-link-', '%confirmationlink-', '%confirmation-link-',
            '%verificationlink-', '%verification-link-', '%loginlink-', '%login-link-',
            '%signedlink-', '%signed-link-', '%unsubscribelink-', '%unsubscribe-link-',
            '%onetimelink-', '%onetime-link-', '%one-timelink-', '%one-time-link-',
            '%impersonationlink-', '%impersonation-link-'])
        or name like '%url%' and name like any (array[
            '%magicurl-', '%magic-url-', '%reseturl-', '%reset-url-', '%inviteurl-',
            '%invite-url-', '%invitationurl-', '%invitation-url-', '%activationurl-',
            '%activation-url-', '%confirmationurl-', '%confirmation-url-', '%verificationurl-',
            '%verification-url-', '%loginurl-', '%login-url-', '%signedurl-', '%signed-url-',
            '%sasurl-', '%sas-url-', '%onetimeurl-', '%onetime-url-', '%one-timeurl-',
            '%one-time-url-', '%impersonationurl-', '%impersonation-url-'])
        or name like '%uri%' and name like any (array[
            '%signeduri-', '%signed-uri-', '%sasuri-', '%sas-uri-', '%onetimeuri-',
            '%onetime-uri-', '%one-timeuri-', '%one-time-uri-', '%impersonationuri-',
            '%impersonation-uri-', '%magicuri-', '%magic-uri-', '%reseturi-', '%reset-uri-',
            '%inviteuri-', '%invite-uri-'])
        or name like '%conn%' and name like any (array[
            '%-connectionstring-', '%-connectionstr-', '%-connection-string-',
            '%-connection-str-', '%-connstring-', '%-connstr-', '%-conn-string-', '%-conn-str-']))
    and not name like any (array[
        '%-at-', '%-on-', '%-by-', '%-type-', '%-types-', '%-kind-', '%-count-', '%-counts-',
        '%-counter-', '%-total-', '%-algorithm-', '%-algo-', '%-alg-', '%-method-', '%-mode-',
        '%enabled-', '%disabled-', '%verified-', '%required-', '%expire-', '%expires-',
        '%expired-', '%expiry-', '%limit-', '%keyid-', '%key-id-', '%-expireat-', '%-expireon-',
        '%-expirein-', '%-expiredate-', '%-expiretime-', '%-expiredays-', '%-expirehours-',
        '%-expireminutes-', '%-expireseconds-', '%-expireinterval-', '%-expire--', '%-expire-in-',
        '%-expire-interval-', '%-expiresat-', '%-expireson-', '%-expiresin-', '%-expiresdate-',
        '%-expirestime-', '%-expiresdays-', '%-expireshours-', '%-expiresminutes-',
        '%-expiresseconds-', '%-expiresinterval-', '%-expires--', '%-expires-in-',
        '%-expires-interval-', '%-expiryat-', '%-expiryon-', '%-expiryin-', '%-expirydate-',
        '%-expirytime-', '%-expirydays-', '%-expiryhours-', '%-expiryminutes-',
        '%-expiryseconds-', '%-expiryinterval-', '%-expiry--', '%-expiry-in-',
        '%-expiry-interval-', '%-expiration-', '%-expirationat-', '%-expirationon-',
        '%-expirationin-', '%-expirationdate-', '%-expirationtime-', '%-expirationdays-',
        '%-expirationhours-', '%-expirationminutes-', '%-expirationseconds-',
        '%-expirationinterval-', '%-expiration--', '%-expiration-in-', '%-expiration-interval-',
        '%-ttl-', '%-lifetime-', '%-duration-', '%-length-', '%-size-', '%-strength-',
        '%-policy-', '%-policies-', '%-rule-', '%-rules-', '%-version-', '%-status-', '%-state-',
        '%-min-%-', '%-minimum-%-', '%-max-%-', '%-maximum-%-', '%-name-', '%-names-', '%-label-',
        '%-title-', '%-description-', '%-prefix-', '%-suffix-', '%-preview-', '%-masked-',
        '%-lastfour-', '%-last-four-', '%-last4-', '%-last-4-', '%-scope-', '%-scopes-',
        '%-permission-', '%-permissions-', '%-issuer-', '%-audience-', '%-provider-',
        '%-strategy-', '%-format-', '%-usage-', '%-used-', '%-changed-', '%-date-', '%-time-',
        '%-days-', '%-hours-', '%-minutes-', '%-seconds-', '%-age-', '%-index-', '%-position-',
        '%-order-', '%-field-', '%-column-', '%-path-', '%-filename-', '%token-url-',
        '%token-uri-', '%token-endpoint-', '%token-host-', '%token-server-', '%client-url-',
        '%client-uri-', '%client-endpoint-', '%client-host-', '%client-server-', '%jwk-url-',
        '%jwk-uri-', '%jwk-endpoint-', '%jwk-host-', '%jwk-server-', '%jwks-url-', '%jwks-uri-',
        '%jwks-endpoint-', '%jwks-host-', '%jwks-server-', '%authorisation-url-',
        '%authorisation-uri-', '%authorisation-endpoint-', '%authorisation-host-',
        '%authorisation-server-', '%authorization-url-', '%authorization-uri-',
        '%authorization-endpoint-', '%authorization-host-', '%authorization-server-',
        '%-configured-', '%-present-', '%-changes-', '%-attempts-', '%-attempt-', '%-failures-',
        '%-resets-', '%-rotation-', '%-sent-', '%token-id-', '%token-ids-', '%token-uuid-',
        '%token-guid-', '%token-ref-', '%token-arn-', '%secret-id-', '%secret-ids-',
        '%secret-uuid-', '%secret-guid-', '%secret-ref-', '%secret-arn-', '%password-id-',
        '%password-ids-', '%password-uuid-', '%password-guid-', '%password-ref-',
        '%password-arn-', '%hash-id-', '%hash-ids-', '%hash-uuid-', '%hash-guid-', '%hash-ref-',
        '%hash-arn-', '%cipher-id-', '%cipher-ids-', '%cipher-uuid-', '%cipher-guid-',
        '%cipher-ref-', '%cipher-arn-', '%otp-id-', '%otp-ids-', '%otp-uuid-', '%otp-guid-',
        '%otp-ref-', '%otp-arn-', '%key-ids-', '%key-uuid-', '%key-guid-', '%key-ref-',
        '%key-arn-', '%code-id-', '%code-ids-', '%code-uuid-', '%code-guid-', '%code-ref-',
        '%code-arn-', '-is-%', '-has-%', '-can-%', '-should-%', '-must-%', '-require-%',
        '-requires-%', '-allow-%', '-allows-%', '-needs-%', '-enable-%', '-disable-%', '-force-%',
        '-max-%', '-min-%', '-num-%', '-skip-%', '%-is-set-', '%-is-valid-', '%-has-set-',
        '%-has-valid-', '%-require-set-', '%-require-valid-', '%-requires-set-',
        '%-requires-valid-', '%-allow-set-', '%-allow-valid-', '%-allows-set-', '%-allows-valid-',
        '%-total-tokens-', '%-input-tokens-', '%-output-tokens-', '%-prompt-tokens-',
        '%-completion-tokens-', '%-cache-tokens-', '%-cached-tokens-', '%-used-tokens-',
        '%-remaining-tokens-', '%-reasoning-tokens-', '%-context-tokens-', '%-daily-tokens-',
        '%-monthly-tokens-', '%-tokens-in-', '%-tokens-out-', '%-tokens-remaining-',
        '%-tokens-per-%-', '%-tokens-left-', '%-tokens-input-', '%-tokens-output-', '%tokenise%',
        '%tokenize%', '%tokenisation%', '%tokenization%', '%secretar%', '%passwordless%',
        '%ciphersuite-', '%ciphersuites-', '%cipher-suite-', '%cipher-suites-', '%hashtag%',
        '%hashmap%', '%hashrate%', '%hashtable%', '%hashring%', '%hashfunction%', '%hash-tag%',
        '%hash-map%', '%hash-rate%', '%hash-table%', '%hash-ring%', '%hash-function%',
        '%-commithash-', '%-commithashes-', '%-commit-hash-', '%-commit-hashes-', '%-githash-',
        '%-githashes-', '%-git-hash-', '%-git-hashes-', '%-contenthash-', '%-contenthashes-',
        '%-content-hash-', '%-content-hashes-', '%-filehash-', '%-filehashes-', '%-file-hash-',
        '%-file-hashes-', '%-blobhash-', '%-blobhashes-', '%-blob-hash-', '%-blob-hashes-',
        '%-blockhash-', '%-blockhashes-', '%-block-hash-', '%-block-hashes-', '%-treehash-',
        '%-treehashes-', '%-tree-hash-', '%-tree-hashes-', '%-imagehash-', '%-imagehashes-',
        '%-image-hash-', '%-image-hashes-', '%-schemahash-', '%-schemahashes-', '%-schema-hash-',
        '%-schema-hashes-', '%-bodyhash-', '%-bodyhashes-', '%-body-hash-', '%-body-hashes-',
        '%-confighash-', '%-confighashes-', '%-config-hash-', '%-config-hashes-', '%-buildhash-',
        '%-buildhashes-', '%-build-hash-', '%-build-hashes-', '%-assethash-', '%-assethashes-',
        '%-asset-hash-', '%-asset-hashes-', '%-mediahash-', '%-mediahashes-', '%-media-hash-',
        '%-media-hashes-', '%-avatarhash-', '%-avatarhashes-', '%-avatar-hash-',
        '%-avatar-hashes-', '%-urlhash-', '%-urlhashes-', '%-url-hash-', '%-url-hashes-',
        '%-geohash-', '%-geohashes-', '%-geo-hash-', '%-geo-hashes-', '%-txhash-', '%-txhashes-',
        '%-tx-hash-', '%-tx-hashes-', '%-transactionhash-', '%-transactionhashes-',
        '%-transaction-hash-', '%-transaction-hashes-', '%-perceptualhash-',
        '%-perceptualhashes-', '%-perceptual-hash-', '%-perceptual-hashes-', '%-rowhash-',
        '%-rowhashes-', '%-row-hash-', '%-row-hashes-', '%-queryhash-', '%-queryhashes-',
        '%-query-hash-', '%-query-hashes-', '%-documenthash-', '%-documenthashes-',
        '%-document-hash-', '%-document-hashes-', '%-migrationhash-', '%-migrationhashes-',
        '%-migration-hash-', '%-migration-hashes-', '%-definitionhash-', '%-definitionhashes-',
        '%-definition-hash-', '%-definition-hashes-', '%-phash-', '%-phashes-', '%-p-hash-',
        '%-p-hashes-', '-country-code-', '-currency-code-', '-language-code-', '-postal-code-',
        '-zip-code-', '-status-code-', '-error-code-', '-exit-code-', '-area-code-']);
end
$$;
comment on function audit_private.is_secret(text) is
    'Whether values of a column of this name are redacted by default';

create or replace function audit_private.says_harmless(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (array[
        '%-ids-', '%-pk-', '%-slug-', '%-index-', '%-idx-', '%-position-', '%-order-', '%-rank-',
        '%-sort-', '%id-', '%-types-', '%-kind-', '%-description-', '%-note-', '%-notes-',
        '%-comment-', '%-comments-', '%-remark-', '%-remarks-', '%type-', '%name-', '%label-',
        '%title-', '%status-', '%-state-', '%-category-', '%-purpose-', '%-reason-', '%-usage-',
        '%-provider-', '%-providers-', '%-issuer-', '%-audience-', '%-source-', '%-algorithm-',
        '%-algo-', '%-alg-', '%-method-', '%-format-', '%-version-', '%-locale-', '%-language-',
        '%-timezone-', '%-encoding-', '%-curve-', '%-email-', '%-e-mail-', '%-user-', '%-owner-',
        '%-creator-', '%-author-', '%-member-', '%-phone-', '%-phone-number-', '%-account-',
        '%-organisation-', '%-organization-', '%-org-', '%-team-', '%-tenant-', '%-project-',
        '%-workspace-', '%-company-', '%-customer-', '%-group-', '%-scope-', '%-scopes-',
        '%-role-', '%-roles-', '%-permission-', '%-permissions-', '%-abilities-', '%-ability-',
        '%-grants-', '%-privileges-', '%-prefix-', '%-suffix-', '%-start-', '%-lastfour-',
        '%-last-four-', '%-last4-', '%-last-4-', '%-lastchars-', '%-last-chars-', '%-preview-',
        '%-masked-', '%-hint-', '%-fingerprint-', '%-ip-', '%-ips-', '%-ipaddress-',
        '%-ip-address-', '%-ipaddresses-', '%-ip-addresses-', '%-useragent-', '%-user-agent-',
        '%-device-', '%-browser-', '%-os-', '%-platform-', '%-country-', '%-city-', '%-region-',
        '%-environment-', '%-env-', '%-domain-', '%-domains-', '%-host-', '%-origin-',
        '%-origins-', '%-transport-', '%-transports-', '%-publickey-', '%-public-key-', '%-at-',
        '%-on-', '%-by-', '%-date-', '%-time-', '%-since-', '%-until-', '%createdat-',
        '%createdon-', '%createdby-', '%updatedat-', '%updatedon-', '%updatedby-', '%modifiedat-',
        '%modifiedon-', '%modifiedby-', '%deletedat-', '%deletedon-', '%deletedby-',
        '%revokedat-', '%revokedon-', '%revokedby-', '%expireat-', '%expireon-', '%expireby-',
        '%expiresat-', '%expireson-', '%expiresby-', '%expiredat-', '%expiredon-', '%expiredby-',
        '%usedat-', '%usedon-', '%usedby-', '%seenat-', '%seenon-', '%seenby-', '%verifiedat-',
        '%verifiedon-', '%verifiedby-', '%-created-', '%-updated-', '%-modified-', '%-deleted-',
        '%-revoked-', '%-expire-', '%-expires-', '%-expired-', '%-expiry-', '%-expiration-',
        '%-added-', '%-enabled-', '%-disabled-', '%-active-', '%-inactive-', '%-verified-',
        '%-confirmed-', '%-locked-', '%-primary-', '%-default-', '%-archived-', '%-used-',
        '%-backed-up-', '%-discoverable-', '%-count-', '%-counter-', '%-attempts-', '%-failures-',
        '%-limit-', '%-quota-', '%-remaining-', '%-alias-', '%-redirect-url-', '%-redirect-urls-',
        '%-redirect-uri-', '%-redirect-uris-', '%-callback-url-', '%-callback-urls-',
        '%-callback-uri-', '%-callback-uris-', '%-scopes-supported-', '-is-%', '-has-%', '-can-%',
        '-allow-%', '-allows-%', '-require-%', '-requires-%', '-rate-limit-%', '-max-%', '-min-%',
        '-accept-', '-accept-%-', '-cache-control-', '-content-%-', '-if-%-', '-pragma-',
        '-range-', '-retry-after-', '-upgrade-', '-vary-', '-x-forwarded-for-',
        '-x-forwarded-proto-', '-traceparent-']);
end
$$;
comment on function audit_private.says_harmless(text) is
    'Whether a column of a table of credentials, by its normal name, may be shown';

create or replace function audit_private.says_store(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (array[
        '%-credential-', '%-credentials-', '%-secret-', '%-secrets-', '%-password-',
        '%-passwords-', '%-passwd-', '%-passwds-', '%-passkey-', '%-passkeys-', '%-vault-',
        '%-vaults-', '%-cookie-', '%-cookies-', '%-pat-', '%-pats-', '%-apikey-', '%-apikeys-',
        '%-apitoken-', '%-apitokens-', '%-api-key-', '%-api-keys-', '%-accesskey-',
        '%-accesskeys-', '%-accesstoken-', '%-accesstokens-', '%-access-key-', '%-access-keys-',
        '%-refreshkey-', '%-refreshkeys-', '%-refreshtoken-', '%-refreshtokens-',
        '%-refresh-key-', '%-refresh-keys-', '%-authkey-', '%-authkeys-', '%-authtoken-',
        '%-authtokens-', '%-auth-key-', '%-auth-keys-', '%-bearerkey-', '%-bearerkeys-',
        '%-bearertoken-', '%-bearertokens-', '%-bearer-key-', '%-bearer-keys-', '%-servicekey-',
        '%-servicekeys-', '%-servicetoken-', '%-servicetokens-', '%-service-key-',
        '%-service-keys-', '%-service-accountkey-', '%-service-accountkeys-',
        '%-service-accounttoken-', '%-service-accounttokens-', '%-service-account-key-',
        '%-service-account-keys-', '%-botkey-', '%-botkeys-', '%-bottoken-', '%-bottokens-',
        '%-bot-key-', '%-bot-keys-', '%-idkey-', '%-idkeys-', '%-idtoken-', '%-idtokens-',
        '%-id-key-', '%-id-keys-', '%-signingkey-', '%-signingkeys-', '%-signing-key-',
        '%-signing-keys-', '%-encryptionkey-', '%-encryptionkeys-', '%-encryption-key-',
        '%-encryption-keys-', '%-sshkey-', '%-sshkeys-', '%-ssh-key-', '%-ssh-keys-',
        '%-privatekey-', '%-privatekeys-', '%-private-key-', '%-private-keys-', '%-deploykey-',
        '%-deploykeys-', '%-deploy-key-', '%-deploy-keys-', '%-secretkey-', '%-secretkeys-',
        '%-secret-key-', '%-secret-keys-', '%-licensekey-', '%-licensekeys-', '%-license-key-',
        '%-license-keys-', '%-gpgkey-', '%-gpgkeys-', '%-gpg-key-', '%-gpg-keys-', '%-pgpkey-',
        '%-pgpkeys-', '%-pgp-key-', '%-pgp-keys-', '%-jwkey-', '%-jwkeys-', '%-jw-key-',
        '%-jw-keys-', '%-token-', '%-tokens-', '%-jwks-', '%-jwt-', '%-jwts-', '%-keyring-',
        '%-keyrings-', '%-keystore-', '%-keystores-', '%-totp-%', '%-hotp-%', '%-webauthn-%',
        '%-u2f-%', '%-fido-%', '%-fido2-%', '%-otp-%', '%-mfa-', '%-mfa-method-',
        '%-mfa-methods-', '%-mfa-factor-', '%-mfa-factors-', '%-mfa-device-', '%-mfa-devices-',
        '%-mfa-code-', '%-mfa-codes-', '%-mfa-auth-', '%-mfa-auths-', '%-mfas-', '%-mfas-method-',
        '%-mfas-methods-', '%-mfas-factor-', '%-mfas-factors-', '%-mfas-device-',
        '%-mfas-devices-', '%-mfas-code-', '%-mfas-codes-', '%-mfas-auth-', '%-mfas-auths-',
        '%-tfa-', '%-tfa-method-', '%-tfa-methods-', '%-tfa-factor-', '%-tfa-factors-',
        '%-tfa-device-', '%-tfa-devices-', '%-tfa-code-', '%-tfa-codes-', '%-tfa-auth-',
        '%-tfa-auths-', '%-tfas-', '%-tfas-method-', '%-tfas-methods-', '%-tfas-factor-',
        '%-tfas-factors-', '%-tfas-device-', '%-tfas-devices-', '%-tfas-code-', '%-tfas-codes-',
        '%-tfas-auth-', '%-tfas-auths-', '%-twofactor-', '%-twofactor-method-',
        '%-twofactor-methods-', '%-twofactor-factor-', '%-twofactor-factors-',
        '%-twofactor-device-', '%-twofactor-devices-', '%-twofactor-code-', '%-twofactor-codes-',
        '%-twofactor-auth-', '%-twofactor-auths-', '%-twofactors-', '%-twofactors-method-',
        '%-twofactors-methods-', '%-twofactors-factor-', '%-twofactors-factors-',
        '%-twofactors-device-', '%-twofactors-devices-', '%-twofactors-code-',
        '%-twofactors-codes-', '%-twofactors-auth-', '%-twofactors-auths-', '%-two-factor-',
        '%-two-factor-method-', '%-two-factor-methods-', '%-two-factor-factor-',
        '%-two-factor-factors-', '%-two-factor-device-', '%-two-factor-devices-',
        '%-two-factor-code-', '%-two-factor-codes-', '%-two-factor-auth-', '%-two-factor-auths-',
        '%-two-factors-', '%-two-factors-method-', '%-two-factors-methods-',
        '%-two-factors-factor-', '%-two-factors-factors-', '%-two-factors-device-',
        '%-two-factors-devices-', '%-two-factors-code-', '%-two-factors-codes-',
        '%-two-factors-auth-', '%-two-factors-auths-', '%-2fa-', '%-2fa-method-',
        '%-2fa-methods-', '%-2fa-factor-', '%-2fa-factors-', '%-2fa-device-', '%-2fa-devices-',
        '%-2fa-code-', '%-2fa-codes-', '%-2fa-auth-', '%-2fa-auths-', '%-2fas-', '%-2fas-method-',
        '%-2fas-methods-', '%-2fas-factor-', '%-2fas-factors-', '%-2fas-device-',
        '%-2fas-devices-', '%-2fas-code-', '%-2fas-codes-', '%-2fas-auth-', '%-2fas-auths-',
        '%-secondfactor-', '%-secondfactor-method-', '%-secondfactor-methods-',
        '%-secondfactor-factor-', '%-secondfactor-factors-', '%-secondfactor-device-',
        '%-secondfactor-devices-', '%-secondfactor-code-', '%-secondfactor-codes-',
        '%-secondfactor-auth-', '%-secondfactor-auths-', '%-secondfactors-',
        '%-secondfactors-method-', '%-secondfactors-methods-', '%-secondfactors-factor-',
        '%-secondfactors-factors-', '%-secondfactors-device-', '%-secondfactors-devices-',
        '%-secondfactors-code-', '%-secondfactors-codes-', '%-secondfactors-auth-',
        '%-secondfactors-auths-', '%-second-factor-', '%-second-factor-method-',
        '%-second-factor-methods-', '%-second-factor-factor-', '%-second-factor-factors-',
        '%-second-factor-device-', '%-second-factor-devices-', '%-second-factor-code-',
        '%-second-factor-codes-', '%-second-factor-auth-', '%-second-factor-auths-',
        '%-second-factors-', '%-second-factors-method-', '%-second-factors-methods-',
        '%-second-factors-factor-', '%-second-factors-factors-', '%-second-factors-device-',
        '%-second-factors-devices-', '%-second-factors-code-', '%-second-factors-codes-',
        '%-second-factors-auth-', '%-second-factors-auths-', '%-authenticator-',
        '%-authenticators-', '%-backupcode-', '%-backupcodes-', '%-backup-code-',
        '%-backup-codes-', '%-recoverycode-', '%-recoverycodes-', '%-recovery-code-',
        '%-recovery-codes-', '%-scratchcode-', '%-scratchcodes-', '%-scratch-code-',
        '%-scratch-codes-', '%-verificationcode-', '%-verificationcodes-', '%-verification-code-',
        '%-verification-codes-', '%-authorisationcode-', '%-authorisationcodes-',
        '%-authorisation-code-', '%-authorisation-codes-', '%-authorizationcode-',
        '%-authorizationcodes-', '%-authorization-code-', '%-authorization-codes-',
        '%-devicecode-', '%-devicecodes-', '%-device-code-', '%-device-codes-', '%-onetimecode-',
        '%-onetimecodes-', '%-onetime-code-', '%-onetime-codes-', '%-one-timecode-',
        '%-one-timecodes-', '%-one-time-code-', '%-one-time-codes-', '%-authcode-',
        '%-authcodes-', '%-auth-code-', '%-auth-codes-', '%-resetcode-', '%-resetcodes-',
        '%-reset-code-', '%-reset-codes-', '%-logincode-', '%-logincodes-', '%-login-code-',
        '%-login-codes-', '%-oauth%code-', '%-oauth%codes-', '%-oauth%grant-', '%-oauth%grants-',
        '%-oauth%token-', '%-oauth%tokens-', '%-oauth%session-', '%-oauth%sessions-',
        '%-oauth%request-', '%-oauth%requests-', '%-oauth%state-', '%-oauth%states-',
        '%-oauth%client-', '%-oauth%clients-', '%-oauth%app-', '%-oauth%apps-',
        '%-oauth%application-', '%-oauth%applications-', '%-oauth-%code-', '%-oauth-%codes-',
        '%-oauth-%grant-', '%-oauth-%grants-', '%-oauth-%token-', '%-oauth-%tokens-',
        '%-oauth-%session-', '%-oauth-%sessions-', '%-oauth-%request-', '%-oauth-%requests-',
        '%-oauth-%state-', '%-oauth-%states-', '%-oauth-%client-', '%-oauth-%clients-',
        '%-oauth-%app-', '%-oauth-%apps-', '%-oauth-%application-', '%-oauth-%applications-',
        '%-oauth2%code-', '%-oauth2%codes-', '%-oauth2%grant-', '%-oauth2%grants-',
        '%-oauth2%token-', '%-oauth2%tokens-', '%-oauth2%session-', '%-oauth2%sessions-',
        '%-oauth2%request-', '%-oauth2%requests-', '%-oauth2%state-', '%-oauth2%states-',
        '%-oauth2%client-', '%-oauth2%clients-', '%-oauth2%app-', '%-oauth2%apps-',
        '%-oauth2%application-', '%-oauth2%applications-', '%-oauth2-%code-', '%-oauth2-%codes-',
        '%-oauth2-%grant-', '%-oauth2-%grants-', '%-oauth2-%token-', '%-oauth2-%tokens-',
        '%-oauth2-%session-', '%-oauth2-%sessions-', '%-oauth2-%request-', '%-oauth2-%requests-',
        '%-oauth2-%state-', '%-oauth2-%states-', '%-oauth2-%client-', '%-oauth2-%clients-',
        '%-oauth2-%app-', '%-oauth2-%apps-', '%-oauth2-%application-', '%-oauth2-%applications-',
        '%-oidc%code-', '%-oidc%codes-', '%-oidc%grant-', '%-oidc%grants-', '%-oidc%token-',
        '%-oidc%tokens-', '%-oidc%session-', '%-oidc%sessions-', '%-oidc%request-',
        '%-oidc%requests-', '%-oidc%state-', '%-oidc%states-', '%-oidc%client-',
        '%-oidc%clients-', '%-oidc%app-', '%-oidc%apps-', '%-oidc%application-',
        '%-oidc%applications-', '%-oidc-%code-', '%-oidc-%codes-', '%-oidc-%grant-',
        '%-oidc-%grants-', '%-oidc-%token-', '%-oidc-%tokens-', '%-oidc-%session-',
        '%-oidc-%sessions-', '%-oidc-%request-', '%-oidc-%requests-', '%-oidc-%state-',
        '%-oidc-%states-', '%-oidc-%client-', '%-oidc-%clients-', '%-oidc-%app-', '%-oidc-%apps-',
        '%-oidc-%application-', '%-oidc-%applications-', '%-authgrant-', '%-authgrants-',
        '%-auth-grant-', '%-auth-grants-', '%-authorisationgrant-', '%-authorisationgrants-',
        '%-authorisation-grant-', '%-authorisation-grants-', '%-authorizationgrant-',
        '%-authorizationgrants-', '%-authorization-grant-', '%-authorization-grants-',
        '%-accessgrant-', '%-accessgrants-', '%-access-grant-', '%-access-grants-',
        '%-passwordreset-', '%-passwordreset-request-', '%-passwordreset-requests-',
        '%-passwordreset-code-', '%-passwordreset-codes-', '%-passwordresets-',
        '%-passwordresets-request-', '%-passwordresets-requests-', '%-passwordresets-code-',
        '%-passwordresets-codes-', '%-passwordverification-', '%-passwordverification-request-',
        '%-passwordverification-requests-', '%-passwordverification-code-',
        '%-passwordverification-codes-', '%-passwordverifications-',
        '%-passwordverifications-request-', '%-passwordverifications-requests-',
        '%-passwordverifications-code-', '%-passwordverifications-codes-',
        '%-passwordconfirmation-', '%-passwordconfirmation-request-',
        '%-passwordconfirmation-requests-', '%-passwordconfirmation-code-',
        '%-passwordconfirmation-codes-', '%-passwordconfirmations-',
        '%-passwordconfirmations-request-', '%-passwordconfirmations-requests-',
        '%-passwordconfirmations-code-', '%-passwordconfirmations-codes-', '%-password-reset-',
        '%-password-reset-request-', '%-password-reset-requests-', '%-password-resets-',
        '%-password-resets-request-', '%-password-resets-requests-', '%-password-resets-code-',
        '%-password-resets-codes-', '%-password-verification-', '%-password-verifications-',
        '%-password-verifications-request-', '%-password-verifications-requests-',
        '%-password-verifications-code-', '%-password-verifications-codes-',
        '%-password-confirmation-', '%-password-confirmation-request-',
        '%-password-confirmation-requests-', '%-password-confirmation-code-',
        '%-password-confirmation-codes-', '%-password-confirmations-',
        '%-password-confirmations-request-', '%-password-confirmations-requests-',
        '%-password-confirmations-code-', '%-password-confirmations-codes-', '%-emailreset-',
        '%-emailreset-request-', '%-emailreset-requests-', '%-emailreset-code-',
        '%-emailreset-codes-', '%-emailresets-', '%-emailresets-request-',
        '%-emailresets-requests-', '%-emailresets-code-', '%-emailresets-codes-',
        '%-emailverification-', '%-emailverification-request-', '%-emailverification-requests-',
        '%-emailverification-code-', '%-emailverification-codes-', '%-emailverifications-',
        '%-emailverifications-request-', '%-emailverifications-requests-',
        '%-emailverifications-code-', '%-emailverifications-codes-', '%-emailconfirmation-',
        '%-emailconfirmation-request-', '%-emailconfirmation-requests-',
        '%-emailconfirmation-code-', '%-emailconfirmation-codes-', '%-emailconfirmations-',
        '%-emailconfirmations-request-', '%-emailconfirmations-requests-',
        '%-emailconfirmations-code-', '%-emailconfirmations-codes-', '%-email-reset-',
        '%-email-reset-request-', '%-email-reset-requests-', '%-email-resets-',
        '%-email-resets-request-', '%-email-resets-requests-', '%-email-resets-code-',
        '%-email-resets-codes-', '%-email-verification-', '%-email-verifications-',
        '%-email-verifications-request-', '%-email-verifications-requests-',
        '%-email-verifications-code-', '%-email-verifications-codes-', '%-email-confirmation-',
        '%-email-confirmation-request-', '%-email-confirmation-requests-',
        '%-email-confirmation-code-', '%-email-confirmation-codes-', '%-email-confirmations-',
        '%-email-confirmations-request-', '%-email-confirmations-requests-',
        '%-email-confirmations-code-', '%-email-confirmations-codes-', '%-accountreset-',
        '%-accountreset-request-', '%-accountreset-requests-', '%-accountreset-code-',
        '%-accountreset-codes-', '%-accountresets-', '%-accountresets-request-',
        '%-accountresets-requests-', '%-accountresets-code-', '%-accountresets-codes-',
        '%-accountverification-', '%-accountverification-request-',
        '%-accountverification-requests-', '%-accountverification-code-',
        '%-accountverification-codes-', '%-accountverifications-',
        '%-accountverifications-request-', '%-accountverifications-requests-',
        '%-accountverifications-code-', '%-accountverifications-codes-', '%-accountconfirmation-',
        '%-accountconfirmation-request-', '%-accountconfirmation-requests-',
        '%-accountconfirmation-code-', '%-accountconfirmation-codes-', '%-accountconfirmations-',
        '%-accountconfirmations-request-', '%-accountconfirmations-requests-',
        '%-accountconfirmations-code-', '%-accountconfirmations-codes-', '%-account-reset-',
        '%-account-reset-request-', '%-account-reset-requests-', '%-account-resets-',
        '%-account-resets-request-', '%-account-resets-requests-', '%-account-resets-code-',
        '%-account-resets-codes-', '%-account-verification-', '%-account-verifications-',
        '%-account-verifications-request-', '%-account-verifications-requests-',
        '%-account-verifications-code-', '%-account-verifications-codes-',
        '%-account-confirmation-', '%-account-confirmation-request-',
        '%-account-confirmation-requests-', '%-account-confirmation-code-',
        '%-account-confirmation-codes-', '%-account-confirmations-',
        '%-account-confirmations-request-', '%-account-confirmations-requests-',
        '%-account-confirmations-code-', '%-account-confirmations-codes-', '%-magiclink-',
        '%-magiclinks-', '%-magic-link-', '%-magic-links-', '%-verificationtoken-',
        '%-verificationtokens-', '%-verificationrequest-', '%-verificationrequests-',
        '%-verification-request-', '%-verification-requests-', '%-onetimetoken-',
        '%-onetimetokens-', '%-onetimepassword-', '%-onetimepasswords-', '%-one-timetoken-',
        '%-one-timetokens-', '%-one-timepassword-', '%-one-timepasswords-', '%-sso%connection-',
        '%-sso%connections-', '%-sso%config-', '%-sso%configs-', '%-sso%configuration-',
        '%-sso%configurations-', '%-sso%provider-', '%-sso%providers-', '%-sso%setting-',
        '%-sso%settings-', '%-sso%server-', '%-sso%servers-', '%-sso%account-', '%-sso%accounts-',
        '%-sso%integration-', '%-sso%integrations-', '%-sso-%connection-', '%-sso-%connections-',
        '%-sso-%config-', '%-sso-%configs-', '%-sso-%configuration-', '%-sso-%configurations-',
        '%-sso-%provider-', '%-sso-%providers-', '%-sso-%setting-', '%-sso-%settings-',
        '%-sso-%server-', '%-sso-%servers-', '%-sso-%account-', '%-sso-%accounts-',
        '%-sso-%integration-', '%-sso-%integrations-', '%-saml%connection-',
        '%-saml%connections-', '%-saml%config-', '%-saml%configs-', '%-saml%configuration-',
        '%-saml%configurations-', '%-saml%provider-', '%-saml%providers-', '%-saml%setting-',
        '%-saml%settings-', '%-saml%server-', '%-saml%servers-', '%-saml%account-',
        '%-saml%accounts-', '%-saml%integration-', '%-saml%integrations-', '%-saml-%connection-',
        '%-saml-%connections-', '%-saml-%config-', '%-saml-%configs-', '%-saml-%configuration-',
        '%-saml-%configurations-', '%-saml-%provider-', '%-saml-%providers-', '%-saml-%setting-',
        '%-saml-%settings-', '%-saml-%server-', '%-saml-%servers-', '%-saml-%account-',
        '%-saml-%accounts-', '%-saml-%integration-', '%-saml-%integrations-',
        '%-ldap%connection-', '%-ldap%connections-', '%-ldap%config-', '%-ldap%configs-',
        '%-ldap%configuration-', '%-ldap%configurations-', '%-ldap%provider-',
        '%-ldap%providers-', '%-ldap%setting-', '%-ldap%settings-', '%-ldap%server-',
        '%-ldap%servers-', '%-ldap%account-', '%-ldap%accounts-', '%-ldap%integration-',
        '%-ldap%integrations-', '%-ldap-%connection-', '%-ldap-%connections-', '%-ldap-%config-',
        '%-ldap-%configs-', '%-ldap-%configuration-', '%-ldap-%configurations-',
        '%-ldap-%provider-', '%-ldap-%providers-', '%-ldap-%setting-', '%-ldap-%settings-',
        '%-ldap-%server-', '%-ldap-%servers-', '%-ldap-%account-', '%-ldap-%accounts-',
        '%-ldap-%integration-', '%-ldap-%integrations-', '%-smtp%connection-',
        '%-smtp%connections-', '%-smtp%config-', '%-smtp%configs-', '%-smtp%configuration-',
        '%-smtp%configurations-', '%-smtp%provider-', '%-smtp%providers-', '%-smtp%setting-',
        '%-smtp%settings-', '%-smtp%server-', '%-smtp%servers-', '%-smtp%account-',
        '%-smtp%accounts-', '%-smtp%integration-', '%-smtp%integrations-', '%-smtp-%connection-',
        '%-smtp-%connections-', '%-smtp-%config-', '%-smtp-%configs-', '%-smtp-%configuration-',
        '%-smtp-%configurations-', '%-smtp-%provider-', '%-smtp-%providers-', '%-smtp-%setting-',
        '%-smtp-%settings-', '%-smtp-%server-', '%-smtp-%servers-', '%-smtp-%account-',
        '%-smtp-%accounts-', '%-smtp-%integration-', '%-smtp-%integrations-',
        '%-imap%connection-', '%-imap%connections-', '%-imap%config-', '%-imap%configs-',
        '%-imap%configuration-', '%-imap%configurations-', '%-imap%provider-',
        '%-imap%providers-', '%-imap%setting-', '%-imap%settings-', '%-imap%server-',
        '%-imap%servers-', '%-imap%account-', '%-imap%accounts-', '%-imap%integration-',
        '%-imap%integrations-', '%-imap-%connection-', '%-imap-%connections-', '%-imap-%config-',
        '%-imap-%configs-', '%-imap-%configuration-', '%-imap-%configurations-',
        '%-imap-%provider-', '%-imap-%providers-', '%-imap-%setting-', '%-imap-%settings-',
        '%-imap-%server-', '%-imap-%servers-', '%-imap-%account-', '%-imap-%accounts-',
        '%-imap-%integration-', '%-imap-%integrations-', '%-scim%connection-',
        '%-scim%connections-', '%-scim%config-', '%-scim%configs-', '%-scim%configuration-',
        '%-scim%configurations-', '%-scim%provider-', '%-scim%providers-', '%-scim%setting-',
        '%-scim%settings-', '%-scim%server-', '%-scim%servers-', '%-scim%account-',
        '%-scim%accounts-', '%-scim%integration-', '%-scim%integrations-', '%-scim-%connection-',
        '%-scim-%connections-', '%-scim-%config-', '%-scim-%configs-', '%-scim-%configuration-',
        '%-scim-%configurations-', '%-scim-%provider-', '%-scim-%providers-', '%-scim-%setting-',
        '%-scim-%settings-', '%-scim-%server-', '%-scim-%servers-', '%-scim-%account-',
        '%-scim-%accounts-', '%-scim-%integration-', '%-scim-%integrations-', '%-basicauth-',
        '%-basicauths-', '%-basic-auth-', '%-basic-auths-']);
end
$$;
comment on function audit_private.says_store(text) is
    'Whether a table, by its normal name, holds credentials';

create or replace function audit_private.says_store_with_a_secret(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (array[
        '%-session-', '%-sessions-', '%-grant-', '%-grants-', '%-verification-',
        '%-verifications-', '%-identities-', '%-identity-', '%-linkedaccount-',
        '%-linkedaccounts-', '%-linked-account-', '%-linked-accounts-', '%-socialaccount-',
        '%-socialaccounts-', '%-social-account-', '%-social-accounts-', '%-accountconnection-',
        '%-accountconnections-', '%-accountlink-', '%-accountlinks-', '%-account-connection-',
        '%-account-connections-', '%-account-link-', '%-account-links-', '%-accountsconnection-',
        '%-accountsconnections-', '%-accountslink-', '%-accountslinks-', '%-accounts-connection-',
        '%-accounts-connections-', '%-accounts-link-', '%-accounts-links-',
        '%-useraccountconnection-', '%-useraccountconnections-', '%-useraccountlink-',
        '%-useraccountlinks-', '%-useraccount-connection-', '%-useraccount-connections-',
        '%-useraccount-link-', '%-useraccount-links-', '%-useraccountsconnection-',
        '%-useraccountsconnections-', '%-useraccountslink-', '%-useraccountslinks-',
        '%-useraccounts-connection-', '%-useraccounts-connections-', '%-useraccounts-link-',
        '%-useraccounts-links-', '%-oauthaccount-', '%-oauthaccounts-', '%-oauth-account-',
        '%-oauth-accounts-', '%-key-', '%-keys-', '%-factor-', '%-factors-',
        '%-identityprovider-', '%-identityproviders-', '%-identity-provider-',
        '%-identity-providers-']);
end
$$;
comment on function audit_private.says_store_with_a_secret(text) is
    'Whether a table, by its normal name, holds credentials if one column is a secret';

create or replace function audit_private.says_connector(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (array[
        '%-integration-%', '%-integrations-%', '%-webhook-%', '%-webhooks-%', '%-hook-%',
        '%-hooks-%', '%-connector-%', '%-connectors-%', '%-connection-%', '%-connections-%',
        '%-datasource-%', '%-datasources-%', '%-data-source-%', '%-data-sources-%', '%-plugin-',
        '%-plugins-', '%-addon-', '%-addons-', '%-destination-', '%-destinations-', '%-sink-',
        '%-sinks-', '%-identityprovider-', '%-identityproviders-', '%-identity-provider-',
        '%-identity-providers-', '%-mailserver-', '%-mailservers-', '%-mail-server-',
        '%-mail-servers-']);
end
$$;
comment on function audit_private.says_connector(text) is
    'Whether a table, by its normal name, holds what the application connects to';

create or replace function audit_private.says_settings(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (array[
        '%-setting-', '%-settings-', '%-config-', '%-configs-', '%-configuration-',
        '%-configurations-', '%-option-', '%-options-', '%-param-', '%-params-', '%-parameter-',
        '%-parameters-', '%-auth-', '%-authentication-', '%-connection-', '%-connection-info-',
        '%-extra-', '%-extras-', '%-properties-', '%-attributes-']);
end
$$;
comment on function audit_private.says_settings(text) is
    'Whether a column of a connector, by its normal name, may hold credentials';

create or replace function audit_private.says_headers(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (array[
        '%-header-', '%-headers-', '%-httpheader-', '%-httpheaders-', '%-requestheader-',
        '%-requestheaders-', '%-customheader-', '%-customheaders-', '%-extraheader-',
        '%-extraheaders-', '%-defaultheader-', '%-defaultheaders-', '%-authheader-',
        '%-authheaders-']);
end
$$;
comment on function audit_private.says_headers(text) is
    'Whether a normal name is one of headers of HTTP';

create or replace function audit_private.says_parameter(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (array[
        '%-key-', '%-sig-', '%-signature-', '%-code-', '%-sid-', '%-auth-', '%-ticket-', '%-otp-',
        '%-pass-', '%-state-', '%-nonce-', '%-jwt-', '%-sas-', '%-hmac-', '%-hdnea-',
        '%accesskey%', '%accesstoken%', '%access-key%', '%access-token%', '%apikey%',
        '%apitoken%', '%api-key%', '%api-token%', '%idkey%', '%idtoken%', '%id-key%',
        '%id-token%', '%refreshkey%', '%refreshtoken%', '%refresh-key%', '%refresh-token%']);
end
$$;
comment on function audit_private.says_parameter(text) is
    'Whether a parameter of an address, by its normal name, is a secret there';
