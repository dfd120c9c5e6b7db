// Package ordersproto is the wire between the storefront and the orders service.
//
// After a change of orders.proto:
//
//	go generate ./examples/orders/ordersproto
//
// Every tool of that line is a Go program of a pinned version: nothing has to be installed.
package ordersproto

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.59.0 generate
