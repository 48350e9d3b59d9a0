// Prints a connect link: go run link.go CUSTOMER [RETURN_TO]. The module golang-jwt/jwt does the same.
package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

func encode(part any) string {
	text, err := json.Marshal(part)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func main() {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		panic(err)
	}
	claims := map[string]any{"customer": os.Args[1], "exp": time.Now().Unix() + 30*60, "jti": hex.EncodeToString(id)}
	if len(os.Args) > 2 {
		claims["return_to"] = os.Args[2]
	}
	content := encode(map[string]string{"alg": "HS256", "typ": "JWT"}) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(os.Getenv("CONNECT_LINK_KEY")))
	mac.Write([]byte(content))
	signature := base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	fmt.Printf("%s/connect/%s.%s\n", os.Getenv("TOKENKEEPER_URL"), content, signature)
}
