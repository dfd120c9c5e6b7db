package httpguard_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/tandemgo/tandem/idempotency/httpguard"
	"github.com/tandemgo/tandem/idempotency/memstore"
)

func Example() {
	store, err := memstore.New(memstore.Config{})
	if err != nil {
		log.Fatal(err)
	}
	tenant := func(r *http.Request) (string, error) {
		user, _, ok := r.BasicAuth() // checked by a layer outside of the guard
		if !ok {
			return "", http.ErrNoCookie
		}
		return user, nil
	}
	guard, err := httpguard.New(store, tenant, httpguard.Config{})
	if err != nil {
		log.Fatal(err)
	}
	orders := 0
	handler := guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		orders++
		w.Header().Set("Location", fmt.Sprintf("/orders/%d", orders))
		w.WriteHeader(http.StatusCreated)
	}))

	order := func(body string) {
		r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
		r.SetBasicAuth("alice", "")
		r.Header.Set("Idempotency-Key", "8e03978e-40d5-43dd-bc93-6894a57f9324")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Printf("%d %s replayed=%q\n", w.Code, w.Header().Get("Location"), w.Header().Get("Idempotent-Replayed"))
	}
	order("eggs")
	order("eggs")
	order("milk")
	fmt.Println("orders:", orders)
	// Output:
	// 201 /orders/1 replayed=""
	// 201 /orders/1 replayed="true"
	// 422  replayed=""
	// orders: 1
}
