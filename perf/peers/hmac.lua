-- HMAC-SHA256 of request bodies by OpenSSL, which nginx has loaded already. Contexts are prepared with their keys
-- once for each worker; a request only restarts them. Signatures are `sha256=` and lower-case hexadecimal digits.
local ffi = require "ffi"
local C = ffi.C

ffi.cdef [[
typedef struct hmac_ctx_st HMAC_CTX;
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_sha256(void);
HMAC_CTX *HMAC_CTX_new(void);
int HMAC_Init_ex(HMAC_CTX *ctx, const char *key, int length, const EVP_MD *digest, void *engine);
int HMAC_Update(HMAC_CTX *ctx, const char *data, size_t length);
int HMAC_Final(HMAC_CTX *ctx, unsigned char *tag, unsigned int *length);
int CRYPTO_memcmp(const void *left, const void *right, size_t length);
unsigned char *ngx_hex_dump(unsigned char *digits, const unsigned char *bytes, size_t length);
]]

local PREFIX = "sha256="
local TAG_BYTES = 32
local DIGITS = 2 * TAG_BYTES
local tag = ffi.new("unsigned char[?]", TAG_BYTES)
local digits = ffi.new("unsigned char[?]", DIGITS)
local checking, signing

local hmac = {}

local function context(key)
    local bytes = assert(ngx.decode_base64(key), "a key is base64")
    local new = C.HMAC_CTX_new()
    assert(new ~= nil and C.HMAC_Init_ex(new, bytes, #bytes, C.EVP_sha256(), nil) == 1, "OpenSSL takes no HMAC key")
    return new
end

-- Leaves the digits of the tag in `digits`.
local function digest(prepared, body)
    local done = C.HMAC_Init_ex(prepared, nil, 0, nil, nil) == 1
        and C.HMAC_Update(prepared, body, #body) == 1
        and C.HMAC_Final(prepared, tag, nil) == 1
    if not done then
        return ngx.exit(500)
    end
    C.ngx_hex_dump(digits, tag, TAG_BYTES)
end

-- For each worker; the second key only where requests are signed anew.
function hmac.prepare(check_key, sign_key)
    checking = context(check_key)
    signing = sign_key and context(sign_key)
end

-- Answers 403 unless the header has the HMAC of the body, which it returns.
function hmac.check(header)
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    local presented = ngx.var["http_" .. header]
    -- A body that is not in memory is longer than the buffer, and would be refused, too.
    if not body or not presented or #presented ~= #PREFIX + DIGITS or presented:sub(1, #PREFIX) ~= PREFIX then
        return ngx.exit(403)
    end
    digest(checking, body)
    if C.CRYPTO_memcmp(digits, ffi.cast("const char *", presented) + #PREFIX, DIGITS) ~= 0 then
        return ngx.exit(403)
    end
    return body
end

-- As check, and gives the request a header for the next hop.
function hmac.check_and_sign(check_header, sign_header)
    local body = hmac.check(check_header)
    digest(signing, body)
    ngx.req.set_header(sign_header, PREFIX .. ffi.string(digits, DIGITS))
end

return hmac
