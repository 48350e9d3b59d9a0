<?php
// Prints a connect link: php link.php CUSTOMER [RETURN_TO]. The package firebase/php-jwt does the same.

function encode(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), "+/", "-_"), "=");
}

$claims = ["customer" => $argv[1], "exp" => time() + 30 * 60, "jti" => bin2hex(random_bytes(16))];
if (isset($argv[2])) {
    $claims["return_to"] = $argv[2];
}
$content = encode(json_encode(["alg" => "HS256", "typ" => "JWT"])) . "." . encode(json_encode($claims));
$signature = encode(hash_hmac("sha256", $content, getenv("CONNECT_LINK_KEY"), true));
echo getenv("TOKENKEEPER_URL") . "/connect/$content.$signature\n";
