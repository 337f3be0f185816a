-- Names: what the name of a column, of a key in a document, of a table or of a label says.
-- Made from auditdb/mapping/vocabulary.toml by `make reference`: change that file, not this one.
--
-- In PL/pgSQL, which plans an expression once: inlined into others they cost more to plan than to
-- evaluate. LIKE and no regular expressions: PostgreSQL keeps no more than 32 of these compiled,
-- and those that look into values need them all. The planner expands the patterns once a session.

create or replace function audit_private.secret_words() returns text
language sql immutable parallel safe
return
    'passw|passphrase|pass|pwd|pswd|secret|token|hash|salt|encrypt|cipher|credential|mnemonic|'
    'phrase|recovery|seed|otp|pin|cvv|cvc|ssn|pem|p12|pfx|pkcs|keystore|keytab|psk|htpasswd|'
    'kennwort|geheim|zugang|schl|wachtwoord|passord|senord|adgangskode|salasana|passe|mdp|'
    'contrase|clave|senha|parol|haslo|heslo|jelsz|sifre|sandi|jwt|jwk|pat|bearer|auth|cookie|srf|'
    'sess|verif|assert|saml|private|key|code|link|url|uri|conn';
comment on function audit_private.secret_words is
    'Pattern, whatever the case, of which each name of a secret has a part';

-- Without JIT, which would compile for half a second what runs for some milliseconds.
create or replace function audit_private.expand(patterns text) returns text[]
language sql immutable parallel safe set search_path = pg_catalog, pg_temp set jit = off
return (
    with recursive part (done, rest) as (
        select '', pattern from string_to_table(expand.patterns, ' ') as pattern
        union all
        select done || split_part(rest, '{', 1) || said, substr(rest, strpos(rest, '}') + 1)
        from part
            cross join string_to_table(
                split_part(split_part(rest, '{', 2), '}', 1), ',') as said
        where strpos(rest, '{') > 0
    )
    select array_agg(done || rest)
    from part
    where strpos(rest, '{') = 0
);
comment on function audit_private.expand is
    'Patterns of LIKE, of a text in which alternatives stand in braces';

create or replace function audit_private.secret_names() returns text[]
language sql immutable parallel safe
return audit_private.expand(
    '%passw% %passphrase% %pass{,-}{code,phrase,word,key-secret}% %-pass{,hash,digest,enc,salt,'
    'new,old,confirm,confirmation,-hash,-digest,-enc,-salt,-new,-old,-confirm,-confirmation}- '
    '%{db,database,auth,smtp,imap,pop,pop3,ftp,sftp,ldap,bind,user,admin,root,mail,proxy}pass- '
    '%pwd{,hash,digest,enc,salt,new,old,confirm,confirmation,-hash,-digest,-enc,-salt,-new,-old,'
    '-confirm,-confirmation}- %-pswd- %secret% %token% %hash{,ed,es}-% %-hashed% %-salt{,s,ed}- '
    '%{password,hash,crypt,user,auth}salt- %encrypted% %-{encrypt,encryption}-{iv,data,value,'
    'blob,payload}% %cipher% %credential% %mnemonic% %{seed,recovery,backup,wallet}{,-}phrase{,'
    's}- %recovery{,-}{word,words,key,kit,seed}{,s}- %-{seed,otpseed,otp-seed,totpseed,'
    'totp-seed}{,s}- %totp% %-{otp,hotp,otps}-% %-otp%{secret,seed,code,backup}% %-pin{,code,'
    'hash,number,block,-code,-hash,-number,-block}{,s}- %-cvv{,2}- %-cvc{,2}- %-ssn- %-pem- '
    '%-p12- %-pfx- %-pkcs{,-}{8,12}- %keystore% %keytab% %-psk- %htpasswd% %kennwort% %-geheim{,'
    'nis,wort,zahl,code}- %zugangs{,-}{code,daten}- %{api,zugangs,zugriffs,geheim,privat}{,'
    '-}schl%ssel- %wachtwoord% %passord% %l%senord% %adgangskode% %salasana% %mot{,-}de{,'
    '-}passe% %-mdp{,-hash}- %contrase% %-clave{,-api,-secreta,-privada,-acceso,-hash}- %-senha{,'
    's,hash,cripto,criptografada,-hash,-cripto,-criptografada}- %-parol{,a,e}{,-hash}- %-haslo{,'
    '-hash}- %-heslo{,-hash}- %jelsz% %-sifre{,si,-hash}- %kata{,-}sandi% %-jwt{,s}- %-jwk- '
    '%-pat{,s}- %-bearer- %-{,proxy-}authori{s,z}ation{,-header,-value,-code}- %-{x,http,basic,'
    'proxy,digest}-auth{,entication}{,-header,-value,-info,-data}- %-{,set-}cookie{,s}{,-id,'
    '-value,-jar,-string,-header,-data}- %-{csrf,xsrf}-% %-{sess,session}{,-}{key,data,cookie}{,'
    's}- %-{j,php,asp}{sessid,sess-id,-sessid,-sess-id,sessionid,session-id,-sessionid,'
    '-session-id}- %{code,pkce,srp,oauth,password}{,-}verifier- %-card-verification-{value,'
    'code}- %-{client,saml}{,-}assertion- %-saml{,-}response- %private{,-}{key,pem,jwk,exponent,'
    'part,bytes,cert,pgp}% %{api,access,signing,signature,account,shared,master,encryption,'
    'decryption,encrypt}{,-}key{,s}-% %{ssh,rsa,dsa,ecdsa,ed25519,ssl,tls,pgp,gpg,hmac,aes,des,'
    'wireguard}{,-}key{,s}- %{auth,authentication,authorization,license,licence,webhook,'
    'integration,deploy}{,-}key{,s}- %{diversification,consumer,server,root,symmetric,wrapped,'
    'wrapping,stream,ingest}{,-}key{,s}- %{seed,preshared,pre-shared,subscription,'
    'instrumentation,connection,function,functions,host}{,-}key{,s}- %{service-role,service,'
    'write,admin,activation,unlock,login,pairing,device,network,app}{,-}key{,s}- %{tfa,mfa,'
    'twofactor,two-factor,2fa,derived,raw,plain,full,clear,enc,data}{,-}key{,s}- %key{,'
    '-}{material,pem,data,value,bytes,pair,json,content}- %{backup,recovery,scratch,emergency,'
    'verification,verify,confirmation,activation}{,-}code{,s}- %{reset,login,signin,signup,'
    'security,pairing,mfa,tfa,2fa,sms,auth,access}{,-}code{,s}- %{invite,invitation,device,user,'
    'unlock,onetime,one-time,magic,registration,claim,redeem,join}{,-}code{,s}- %{twofactor,'
    'two-factor,authorisation,authorization,oauth,grant,rescue,challenge,temporary}{,-}code{,s}- '
    '%{magic,reset,invite,invitation,activation,confirmation,verification,login,signed}{,-}link- '
    '%{unsubscribe,onetime,one-time,impersonation}{,-}link- %{magic,reset,invite,invitation,'
    'activation,confirmation,verification,login}{,-}url- %{signed,sas,onetime,one-time,'
    'impersonation}{,-}url- %{signed,sas,onetime,one-time,impersonation,magic,reset,invite}{,'
    '-}uri- %-{connection,conn}{,-}{string,str}-');
comment on function audit_private.secret_names is
    'Patterns of normal names of secrets';

create or replace function audit_private.open_names() returns text[]
language sql immutable parallel safe
return audit_private.expand(
    '%-{at,on,by,type,types,kind,count,counts,counter,total,algorithm,algo,alg,method,mode}- %{,'
    '-}{enabled,disabled,verified,required,expire,expires,expired,expiry,limit,keyid,key-id}- '
    '%-{expire,expires,expiry,expiration}{,-}{,at,on,in,date,time,days,hours,minutes,seconds,'
    'interval}- %-{ttl,lifetime,duration,length,size,strength,policy,policies,rule,rules,version,'
    'status,state}- %-{min,max}{,imum}-%- %-{name,names,label,title,description,prefix,suffix,'
    'preview,masked,lastfour,last-four,last4,last-4}- %-{scope,scopes,permission,permissions,'
    'issuer,audience,provider,strategy,format,usage,used,changed}- %-{date,time,days,hours,'
    'minutes,seconds,age,index,position,order,field,column,path,filename,file-name}- %{token,'
    'client,jwk,jwks,authorisation,authorization,access-token,refresh-token}-{url,uri,endpoint,'
    'host,server}- %-{configured,present,changes,attempts,attempt,failures,resets,rotation,'
    'reset-sent,sent}- %{token,secret,password,hash,cipher,otp,totp,key,code}-{id,ids,uuid,guid,'
    'ref,arn}- -{is,has,can,should,must,require,requires,allow,allows,needs,enable,disable,force,'
    'max,min,num,skip}-% %-{is,has,require,requires,allow,allows}-{set,required,valid,enabled,'
    'changed}- %-{total,input,output,prompt,completion,cache,cached,used,remaining,reasoning,'
    'context,daily,monthly}-tokens- %-tokens-{used,total,in,out,limit,remaining,per-%,left,count,'
    'input,output}- %token{ise,iser,ize,izer,ised,ized,isation,ization}% %secretar% '
    '%passwordless% %cipher{,-}suite{,s}- %hash{,-}{tag,map,rate,table,ring,function}% %-{commit,'
    'git,content,file,blob,block,tree,image,schema,body,config,build,asset,media}{,-}hash{,es}- '
    '%-{avatar,url,geo,tx,transaction,perceptual,row,query,document,migration,definition,p}{,'
    '-}hash{,es}- -{country,currency,language,postal,zip,status,error,exit,area}-code-');
comment on function audit_private.open_names is
    'Patterns of normal names that tell of a secret, and do not hold it';

create or replace function audit_private.normal_name(name text) returns text
language sql immutable parallel safe
return translate('-' || lower(case when name = lower(name collate "C") then name else
    regexp_replace(
        regexp_replace(name collate "C", '([a-z0-9])([A-Z])', '\1-\2', 'g'),
        '([A-Z])([A-Z][a-z])', '\1-\2', 'g') end collate "C") || '-',
    ' _./:$@#+[]~', '------------');
comment on function audit_private.normal_name is
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
    return name like any (audit_private.secret_names())
        and not name like any (audit_private.open_names());
end
$$;
comment on function audit_private.is_secret is
    'Whether values of a column of this name are redacted by default';

create or replace function audit_private.says_harmless(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (audit_private.expand(
        '%-{id,ids,uuid,guid,oid,pk,kid,aaguid,slug,index,idx,position,order,rank,sort}- %%{id,'
        'uuid,guid}- %-{type,types,kind,name,label,title,description,note,notes,comment,comments,'
        'remark,remarks}- %%{type,name,label,title,status}- %-{status,state,category,purpose,'
        'reason,usage,provider,providers,issuer,audience,source}- %-{algorithm,algo,alg,method,'
        'format,version,locale,language,timezone,encoding,curve}- %-{email,e-mail,username,user,'
        'owner,creator,author,member,phone,phone-number}- %-{account,organisation,organization,'
        'org,team,tenant,project,workspace,company,customer,group}- %-{scope,scopes,role,roles,'
        'permission,permissions,abilities,ability,grants,privileges}- %-{prefix,suffix,start,'
        'lastfour,last-four,last4,last-4,lastchars,last-chars,preview,masked,hint,fingerprint}- '
        '%-{ip,ips,ipaddress,ip-address,ipaddresses,ip-addresses,useragent,user-agent,device,'
        'browser,os,platform,country,city}- %-{region,environment,env,domain,domains,host,origin,'
        'origins,transport,transports,publickey,public-key}- %-{at,on,by,date,time,since,until}- '
        '%{created,updated,modified,deleted,revoked,expire,expires,expired,used,seen,'
        'verified}{at,on,by}- %-{created,updated,modified,deleted,revoked,expire,expires,expired,'
        'expiry,expiration,added}- %-{enabled,disabled,active,inactive,verified,confirmed,locked,'
        'primary,default,archived}- %-{valid,used,backed-up,discoverable,count,counter,attempts,'
        'failures,limit,quota,remaining}- %-{alias,redirect-url,redirect-urls,redirect-uri,'
        'redirect-uris,callback-url,callback-urls,callback-uri,callback-uris,scopes-supported,'
        'grant-type,grant-types,response-type,response-types}- -{is,has,can,allow,allows,require,'
        'requires,rate-limit,max,min}-% -{accept,accept-%,cache-control,content-%,date,if-%,'
        'last-modified,pragma}- -{range,retry-after,transfer-encoding,upgrade,vary,x-request-id,'
        'x-correlation-id}- -{x-forwarded-for,x-forwarded-host,x-forwarded-proto,traceparent}-'));
end
$$;
comment on function audit_private.says_harmless is
    'Whether a column of a table of credentials, by its normal name, may be shown';

create or replace function audit_private.says_store(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (audit_private.expand(
        '%-{credential,credentials,secret,secrets,password,passwords,passwd,passwds,passkey,'
        'passkeys,vault,vaults,cookie,cookies,pat,pats}- %-{api,access,refresh,auth,bearer,'
        'personal-access,service,service-account,bot,id}{,-}{key,keys,token,tokens}- %-{signing,'
        'encryption,ssh,private,deploy,secret,license,gpg,pgp,jw}{,-}key{,s}- %-{token,tokens,'
        'jwks,jwt,jwts,authtoken,authtokens,apikey,apikeys,apitoken,apitokens,keyring,keyrings,'
        'keystore,keystores}- %-{totp,hotp,webauthn,u2f,fido,fido2,otp}-% %-{mfa,tfa,twofactor,'
        'two-factor,2fa,secondfactor,second-factor}{,s}{,-method,-methods,-factor,-factors,'
        '-device,-devices,-secret,-secrets,-authenticator,-authenticators,-code,-codes,-auth,'
        '-auths}- %-authenticator{,s}- %-{backup,recovery,scratch,verification,authorisation,'
        'authorization,device,onetime,one-time,auth,reset,login}{,-}code{,s}- %-{oauth,oauth2,'
        'oidc}{,-}%{code,codes,grant,grants,token,tokens,session,sessions,request,requests,state,'
        'states,client,clients,app,apps,application,applications}- %-{auth,authorisation,'
        'authorization,access}{,-}grant{,s}- %-{password,email,account}{,-}{reset,resets,'
        'verification,verifications,confirmation,confirmations}{,-token,-tokens,-request,'
        '-requests,-code,-codes}- %-{magiclink,magiclinks,magic-link,magic-links,'
        'verificationtoken,verificationtokens,verificationrequest,verificationrequests,'
        'verification-token,verification-tokens,verification-request,verification-requests,'
        'onetimetoken,onetimetokens,onetimepassword,onetimepasswords,onetime-token,'
        'onetime-tokens,onetime-password,onetime-passwords,one-timetoken,one-timetokens,'
        'one-timepassword,one-timepasswords,one-time-token,one-time-tokens,one-time-password,'
        'one-time-passwords}- %-{sso,saml,ldap,smtp,imap,scim}{,-}%{connection,connections,'
        'config,configs,configuration,configurations,provider,providers,setting,settings,server,'
        'servers,account,accounts,integration,integrations}- %-basic{,-}auth{,s}-'));
end
$$;
comment on function audit_private.says_store is
    'Whether a table, by its normal name, holds credentials';

create or replace function audit_private.says_store_with_a_secret(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (audit_private.expand(
        '%-{session,sessions,grant,grants,verification,verifications,identities,identity,'
        'linkedaccount,linkedaccounts,linked-account,linked-accounts,socialaccount,'
        'socialaccounts,social-account,social-accounts}- %-{,user,user-}account{,s}{,'
        '-}{connection,connections,link,links}- %-oauth{,-}account{,s}- %-{key,keys,factor,'
        'factors,identityprovider,identityproviders,identity-provider,identity-providers}-'));
end
$$;
comment on function audit_private.says_store_with_a_secret is
    'Whether a table, by its normal name, holds credentials if one column is a secret';

create or replace function audit_private.says_connector(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (audit_private.expand(
        '%-{integration,integrations,webhook,webhooks,hook,hooks,connector,connectors,connection,'
        'connections,datasource,datasources,data-source,data-sources}-% %-{plugin,plugins,addon,'
        'addons,destination,destinations,sink,sinks,identityprovider,identityproviders,'
        'identity-provider,identity-providers,mailserver,mailservers,mail-server,mail-servers}-'));
end
$$;
comment on function audit_private.says_connector is
    'Whether a table, by its normal name, holds what the application connects to';

create or replace function audit_private.says_settings(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (audit_private.expand(
        '%-{setting,settings,config,configs,configuration,configurations,option,options,param,'
        'params,parameter,parameters}- %-{auth,authentication,connection,connection-info,extra,'
        'extras,properties,attributes}-'));
end
$$;
comment on function audit_private.says_settings is
    'Whether a column of a connector, by its normal name, may hold credentials';

create or replace function audit_private.says_headers(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (audit_private.expand(
        '%-{,http,http-,request,request-,custom,custom-,extra,extra-,default,default-,auth,'
        'auth-}header{,s}-'));
end
$$;
comment on function audit_private.says_headers is
    'Whether a normal name is one of headers of HTTP';

create or replace function audit_private.says_parameter(name text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return name like any (audit_private.expand(
        '%-{key,sig,signature,code,sid,auth,ticket,otp,pass,state,nonce,jwt,sas,hmac,hdnea}- '
        '%{access,api,id,refresh}{,-}{key,token}%'));
end
$$;
comment on function audit_private.says_parameter is
    'Whether a parameter of an address, by its normal name, is a secret there';

create or replace function audit_private.label_words(entry text) returns text
language sql immutable parallel safe
return case entry
    when 'living' then '(active|accepted|approved|confirmed|enabled|joined)'
    when 'dead' then
        '(revoked|removed|deleted|disabled|deactivated|inactive|suspended|expired|left|banned|'
        'blocked|cancelled|canceled|declined|rejected|archived|former|rotated|compromised|'
        'terminated|withdrawn)'
    when 'pending' then
        '(pending|invited?|requested|awaiting|unconfirmed|unverified|unaccepted|applied|draft|'
        'sent|created|new|onboarding|waiting)'
    when 'recovery' then '((recovery|backup|scratch|emergency)(codes?|keys?|tokens?)?)'
    when 'admin' then '(owner|admin|administrator|superadmin|superuser|coowner)'
    when 'role' then
        '(member|user|manager|viewer|editor|guest|billing|developer|maintainer|contributor|'
        'moderator|staff|collaborator|reader|writer|operator|agent|employee|read|write|observer|'
        'reporter|analyst|readonly|basic|standard|supervisor|root)'
    when 'wide' then
        '(organi[sz]ation|org|account|workspace|company|tenant|business|super|primary|system|'
        'full|global|co|site|head|role|main)'
end;
comment on function audit_private.label_words is
    'Pattern of labels that an entry names, or null';

create or replace function audit_private.words(entry text) returns text
language sql immutable parallel safe
return case entry
    when 'touched' then
        '((row)?(updated?|modified|changed|touched|synced|refreshed|accessed|visited|viewed)(at|'
        'on|date|time|ts)|(row)?(updated|modified|changed|touched|synced|refreshed)|(at|date|'
        'time)?last(updated|modified|changed|touched)(at|on|date|time)?|updatetime|(last|current|'
        'previous|next)(used?|usage|request(ed)?|refill(ed)?|seen|active|activity|access(ed)?|'
        'log(ged)?in|sign(ed)?in|run|ran|execut(ion|ed)|triggered|fired|alert(ed)?|notified|'
        'visit(ed)?|view(ed)?|opened|checked|polled|synced|heartbeat)(at|on|date|time|ts|ip|'
        'from)?|last(page|path|route)|latest[a-z]+(at|on)|activeat|last(used|login|seen|signin|'
        'access)(at|on)?(ip|ipaddress|useragent|by)|(login|signin|use|usage|used|view|run|'
        'execution|request|call|hit|access|failed|failure|error|attempt|failedattempt|'
        'failedlogin|failedloginattempt|retry|trigger|invalidattempt)s?(count|counter|total)|'
        '(fail(ed)?|invalid)(login|password|signin|otp)?(attempts?|logins|count)|loginattempts|'
        '(sign|auth)?counter|signcount|lockversion|remaining|rowversion|xmin|searchvector|'
        'consumedtimestep|(first)?seen(at|on|date|time|ts)|activity(at|on|date|time|ts)|lastt|'
        'remember(me)?(token|created|at|on|createdat|createdon|expiresat|expires)|'
        'throttling(failure|failed|error)?(at|until|time|timestamp|since|count|counter)|(failed|'
        'invalid|failure)(verification|login|password|signin|otp|pin|code|mfa|factor|'
        'access)s?(attempts?|tries|count|counter|total)|(access|verification)failed(attempts?|'
        'count|counter))'
    when 'counted' then
        '((?![a-z]*(seat|licen[cs]e|allow|max|min|limit|quota|purchased|paid))[a-z]*([^siu]s|'
        'ies)count|drift)'
    when 'throttled' then '((locked|lockout|blocked|throttled)(until|expiresat))'
    when 'failures' then '([a-z]*(failed|failure|invalid|attempt|tries|throttling)[a-z]*)'
    when 'ended' then '(deleted|removed|revoked|discarded|archived|deactivated)'
    when 'ended_membership' then '(disabled|suspended|left|ended|terminated)'
    when 'ended_api_key' then '(disabled|invalidated|suspended|terminated|rotated)'
    when 'ended_two_factor' then '(disabled)'
    when 'on_membership' then '(active|enabled)'
    when 'on_api_key' then '(active|enabled|valid)'
    when 'on_two_factor' then '(active|enabled|verified|confirmed|activated)'
    when 'accepted' then
        '((invite|invitation)?accepted|confirmed|approved|joined|verified|active|enabled|'
        'activated)'
    when 'pending_flag' then
        '((invite|invitation)?pending|invited|disabled|suspended|blocked|banned)'
    when 'status' then
        '((membership|member|invitation|invite|account|user|key|token|factor)?(status|state))'
    when 'two_factor' then '(twofactor|2fa|^tfa|mfa|totp|twostep|multifactor)'
    when 'role_name' then
        '(roles?|rolename|(access|permission)level|(member|membership|user)type|permissions?|'
        'privileges?|rank)'
    when 'no_role' then '(deprecated|old|legacy|previous|default|invited|custom)'
    when 'no_carrier' then '(invite|invitation|log|event|session|token|key|history)'
    when 'group' then
        '(organi[sz]ation|org|tenant|company|companie|workspace|account|business|agency|agencie|'
        'enterprise|institution|firm|customer|client|team|school|space|realm|store|shop|brand|'
        'merchant|vendor|partner|group|project|department|club|community|communitie|unit|family|'
        'familie|household)'
    when 'nested' then '(team|group|unit|space|workspace|department)'
    else audit_private.label_words(entry)
end;
comment on function audit_private.words is
    'Pattern of names or labels of an entry that is not about secrets, or null';

-- Hundreds tell name, address and role apart. A value is cut, and quoted as in JSON: no name can
-- look like two.
create or replace function audit_private.called(image jsonb) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _key text;
    _rank int;
    _best int[] := array[999, 999, 999];
    _said text[] := array[null, null, null];
begin
    for _key in select jsonb_object_keys(image) loop
        _rank := (
            '{"name": 100, "displayname": 101, "fullname": 102, "legalname": 103, "tradingname": '
            '104, "companyname": 105, "businessname": 106, "title": 107, "label": 108, '
            '"caption": 109, "subject": 110, "username": 111, "login": 112, "handle": 113, '
            '"slug": 114, "firstname": 115, "lastname": 116, "email": 200, "emailaddress": 201, '
            '"mail": 202, "domain": 203, "url": 204, "role": 300, "rolename": 301, "roles": 302, '
            '"accesslevel": 303, "permissionlevel": 304, "permission": 305, "roleid": 306}'::jsonb
            -> lower(replace(_key, '_', '')));
        if _rank < _best[_rank / 100] and image ->> _key not in ('', '[redacted]') then
            _best[_rank / 100] := _rank;
            _said[_rank / 100] := _key || ' ' || to_json(left(image ->> _key, 40));
        end if;
    end loop;
    return nullif(array_to_string(_said, ', '), '');
end
$$;
comment on function audit_private.called is
    'What a person knows a row by, of its values: name, address and role, or null';
