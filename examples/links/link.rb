# Prints a connect link: ruby link.rb CUSTOMER [RETURN_TO]. The gem `jwt` does the same.

require "base64"
require "json"
require "openssl"
require "securerandom"

def encode(bytes) = Base64.urlsafe_encode64(bytes, padding: false)

customer, return_to = ARGV
claims = { customer:, return_to:, exp: Time.now.to_i + 30 * 60, jti: SecureRandom.uuid }.compact
content = [{ alg: "HS256", typ: "JWT" }, claims].map { |part| encode(JSON.generate(part)) }.join(".")
signature = encode(OpenSSL::HMAC.digest("SHA256", ENV.fetch("CONNECT_LINK_KEY"), content))
puts "#{ENV.fetch("TOKENKEEPER_URL")}/connect/#{content}.#{signature}"
