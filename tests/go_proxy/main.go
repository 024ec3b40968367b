// A reverse proxy that treats a request as Grafana's data source proxy does, with the same httputil.ReverseProxy of
// Go's standard library and nothing of Grafana's: it sets the user, its token, the cookies and the data source's own
// headers in the Director, and Go removes what the client lists in Connection after that.
//
// Arguments: the address to listen on, the address of the data source, its Authorization and the user's token.
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"os"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: go_proxy LISTEN TARGET AUTHORIZATION TOKEN")
	}
	listen, target, authorization, token := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	proxy := &httputil.ReverseProxy{Director: func(request *http.Request) {
		request.URL.Scheme = "http"
		request.URL.Host = target
		request.Host = target
		kept := request.Cookies()
		request.Header.Del("Cookie")
		for _, cookie := range kept {
			// jsonData.keepCookies
			if cookie.Name == "Client_Ip" {
				request.AddCookie(cookie)
			}
		}
		for _, name := range []string{"Origin", "Referer", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto"} {
			request.Header.Del(name)
		}
		// send_user_header, oauthPassThru and the data source's own headers.
		request.Header.Set("X-Grafana-User", "ada")
		request.Header.Set("X-Id-Token", token)
		request.Header.Set("Authorization", authorization)
		request.Header.Set("X-Scope-OrgID", "tenant1")
	}}
	log.Fatal(http.ListenAndServe(listen, proxy))
}
