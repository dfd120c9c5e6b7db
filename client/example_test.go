package client_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"github.com/tandemgo/tandem/client"
)

// stock is a server that is overloaded when it is asked for the first two times.
func stock() *httptest.Server {
	var asked atomic.Int32
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
}

func Example() {
	server := stock()
	defer server.Close()

	c, err := client.New(client.Config{})
	if err != nil {
		log.Fatal(err)
	}
	res, err := c.Get(server.URL) // answers 503 twice
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Status) // that of the third attempt
	// Output: 200 OK
}

// The server half goes around the handler.
func ExampleNewInbound() {
	inbound, err := client.NewInbound(client.InboundConfig{})
	if err != nil {
		log.Fatal(err)
	}
	handler := inbound(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, bounded := r.Context().Deadline()
		fmt.Println("the caller's deadline is here:", bounded)
		client.NoRetry(r.Context()) // it will not get better
		w.WriteHeader(http.StatusServiceUnavailable)
	}))

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Tandem-Timeout-Ms", "250")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("Tandem-Retry"))
	// Output:
	// the caller's deadline is here: true
	// 503 no
}
