package main

// What shoppers see: HTTP in front of the orders service.

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tandemgo/tandem/client"
	"github.com/tandemgo/tandem/examples/orders/ordersproto"
	"github.com/tandemgo/tandem/idempotency"
	"github.com/tandemgo/tandem/idempotency/httpguard"
)

// storefront is what shoppers see:
//
//	POST /api/orders        with an Idempotency-Key: 201 or 402 when it is decided, else 503 with Retry-After
//	GET  /api/orders/{key}  200 and the order that was placed under a key, as it is now
type storefront struct {
	orders ordersproto.OrderServiceClient
}

// An orderRequest is the body of POST /api/orders.
type orderRequest struct {
	Card  string `json:"card"`
	Email string `json:"email"`
	Items []item `json:"items"`
}

// An orderAnswer is the body of every answer about an order.
type orderAnswer struct {
	OrderID string `json:"order_id"`
	State   state  `json:"state"`
	Reason  string `json:"reason,omitempty"`
}

// newStorefront returns the whole handler. The guard answers a repeated POST with the first answer, and one that comes
// while the first is at work with 409; the inbound half gives the handler the deadline that its caller has.
func newStorefront(o ordersproto.OrderServiceClient, answers idempotency.Store, c httpguard.Config) (http.Handler, error) {
	s := &storefront{orders: o}
	guard, err := httpguard.New(answers, func(r *http.Request) (string, error) { return user(r) }, c)
	if err != nil {
		return nil, err
	}
	inbound, err := client.NewInbound(client.InboundConfig{})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /api/orders", guard(http.HandlerFunc(s.create)))
	mux.HandleFunc("GET /api/orders/{key}", s.get)
	return inbound(mux), nil
}

// user is who logged in; here, what a gateway in front would have put into the request.
func user(r *http.Request) (string, error) {
	if u := r.Header.Get("User-Id"); u != "" {
		return u, nil
	}
	return "", errors.New("not logged in")
}

// orderKeyOf returns what names an order among those of a user. The guard reads a quoted key and a bare one as the same, so the
// order's id must not differ either; of what else a key may hold this shop takes what needs no quoting.
func orderKeyOf(r *http.Request) (string, bool) {
	key := strings.Trim(strings.TrimSpace(r.Header.Get("Idempotency-Key")), `"`)
	odd := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	}
	return key, key != "" && strings.IndexFunc(key, odd) < 0
}

func (s *storefront) create(w http.ResponseWriter, r *http.Request) {
	id, err := user(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	key, ok := orderKeyOf(r)
	if !ok {
		http.Error(w, "an Idempotency-Key here is letters, digits, - and _", http.StatusBadRequest)
		return
	}
	var in orderRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, "the body is not an order", http.StatusBadRequest)
		return
	}
	o, err := s.orders.CreateOrder(r.Context(), in.proto(id, key))
	switch {
	case err != nil:
		refuse(w, err)
	case o.GetState() == ordersproto.State_STATE_PUBLISHED:
		write(w, http.StatusCreated, o)
	case o.GetState() == ordersproto.State_STATE_DECLINED:
		write(w, http.StatusPaymentRequired, o)
	default:
		comeBack(w)
	}
}

func (r orderRequest) proto(user, key string) *ordersproto.CreateOrderRequest {
	p := &ordersproto.CreateOrderRequest{UserId: user, IdempotencyKey: key, Card: r.Card, Email: r.Email}
	for _, i := range r.Items {
		p.Items = append(p.Items, &ordersproto.Item{Sku: i.SKU, Quantity: i.Quantity, UnitCents: i.UnitCents})
	}
	return p
}

func (s *storefront) get(w http.ResponseWriter, r *http.Request) {
	id, err := user(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	o, err := s.orders.GetOrder(r.Context(), &ordersproto.GetOrderRequest{UserId: id, IdempotencyKey: r.PathValue("key")})
	if err != nil {
		refuse(w, err)
		return
	}
	write(w, http.StatusOK, o)
}

// refuse tells the shopper what is definite, and else to come back: nothing is called failed that may have happened.
func refuse(w http.ResponseWriter, err error) {
	text := status.Convert(err).Message()
	switch status.Code(err) {
	case codes.InvalidArgument:
		http.Error(w, text, http.StatusBadRequest)
	case codes.NotFound:
		http.Error(w, text, http.StatusNotFound)
	case codes.FailedPrecondition:
		http.Error(w, text, http.StatusUnprocessableEntity)
	default:
		comeBack(w)
	}
}

func comeBack(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "the order is not finished yet; ask again with the same key", http.StatusServiceUnavailable)
}

// write answers with an order.
func write(w http.ResponseWriter, status int, o *ordersproto.Order) {
	states := map[ordersproto.State]state{
		ordersproto.State_STATE_PLACED:    placed,
		ordersproto.State_STATE_CHARGED:   charged,
		ordersproto.State_STATE_PUBLISHED: published,
		ordersproto.State_STATE_DECLINED:  declined,
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(orderAnswer{OrderID: o.GetOrderId(), State: states[o.GetState()], Reason: o.GetReason()}) // the shopper may have gone
}
