package keyed_test

import (
	"fmt"
	"time"

	"github.com/tandemgo/tandem/internal/keyed"
)

func ExampleNew() {
	hosts := keyed.New(2, time.Hour, func(string) *int { return new(int) }, nil)
	*hosts.Get("a")++
	*hosts.Get("b")++
	*hosts.Get("a")++
	*hosts.Get("c")++ // the bound is two: b was not used for the longest time
	fmt.Println(hosts.Len(), *hosts.Get("a"), *hosts.Get("b"))
	// Output: 2 2 0
}
